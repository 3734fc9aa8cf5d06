"""`statekeep ab report`: both arms of a rollout compared, over any number of servers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from statekeep_server.cli import options
from statekeep_server.cli.connection import Connection, ask, connected
from statekeep_server.cli.output import Format, console, print_facts, print_json, print_table
from statekeep_server.domain.model import Path
from statekeep_server.service.comparison import (
    ArmCounts,
    ArmReport,
    Estimate,
    Report,
    compare,
    total,
)
from statekeep_server.service.histogram import Durations

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import ArmStats, ServerStats

app = typer.Typer(
    name="ab",
    help="Compare the optimized path with the standard one on live traffic.",
    no_args_is_help=True,
)


@app.command()
@connected
def report(
    targets: options.Targets = None,
    output: options.Output = Format.TABLE,
    json: options.Json = False,
    *,
    connection: Connection,
) -> None:
    """Compare both arms since the rollout last changed, with 95 % intervals and a verdict.

    An arm is the path that the flags chose for a save. Every server counts both over the same time,
    and begins anew when the rollout changes. The mean has an interval by the normal distribution,
    quantiles have order statistics, rates Wilson's; saves are taken as independent of one another.
    """
    found = [
        ask(connection.to(target), lambda client: client.stats())
        for target in dict.fromkeys(targets or (None,))
    ]
    made = compare(_arm(found, Path.STANDARD), _arm(found, Path.OPTIMIZED))
    since = min(each.arms_since for each in found)
    if json or output is Format.JSON:
        print_json({"since": since, "servers": len(found), **asdict(made), "verdict": made.verdict})
        return
    print_facts([("since", since), ("servers", len(found))])
    _print_arms(made)
    _print_failures(made)
    console().print(made.verdict)


def _arm(found: "Sequence[ServerStats]", path: Path) -> ArmCounts:
    return total(_counts(arm) for stats in found for arm in stats.arms if str(arm.path) == path)


def _counts(arm: "ArmStats") -> ArmCounts:
    return ArmCounts(
        saves=arm.saves,
        skipped=arm.skipped,
        rows_written=arm.rows_written,
        statements=arm.statements,
        failures=arm.failures,
        fallbacks=arm.fallbacks,
        persisted_durations=_durations(arm.persisted_durations),
        skipped_durations=_durations(arm.skipped_durations),
    )


def _durations(told: Any) -> Durations:
    return Durations(
        count=told.count,
        sum_s=told.sum_s,
        sum_squares=told.sum_squares,
        buckets=told.buckets,
    )


def _print_arms(made: Report) -> None:
    arms = (made.standard, made.optimized)
    rows = [
        ("saves", *(arm.saves for arm in arms)),
        ("skipped %", *(_percent(arm.skip_rate) for arm in arms)),
        ("rows a save", *(arm.rows_per_save for arm in arms)),
        ("statements a save", *(arm.statements_per_save for arm in arms)),
        ("single saves", *(arm.timed for arm in arms)),
        ("mean ms", *(_milliseconds(arm.mean_s) for arm in arms)),
        ("p50 ms", *(_milliseconds(arm.p50_s) for arm in arms)),
        ("p95 ms", *(_milliseconds(arm.p95_s) for arm in arms)),
        ("p99 ms", *(_milliseconds(arm.p99_s) for arm in arms)),
        ("failed %", *(_percent(arm.failure_rate) for arm in arms)),
        ("fell back %", *(_percent(arm.fallback_rate) for arm in arms)),
    ]
    print_table(("", "standard", "optimized"), rows, right=("standard", "optimized"))


def _print_failures(made: Report) -> None:
    named: list[tuple[str, ArmReport]] = [
        ("standard", made.standard),
        ("optimized", made.optimized),
    ]
    rows = [
        (name, reason, count)
        for name, arm in named
        for reason, count in sorted(arm.failures.items())
    ]
    if rows:
        print_table(("arm", "reason", "saves"), rows, title="Failures", right=("saves",))


def _milliseconds(estimate: Estimate | None) -> str:
    return _with_interval(estimate, 1_000)


def _percent(estimate: Estimate | None) -> str:
    return _with_interval(estimate, 100)


def _with_interval(estimate: Estimate | None, scale: float) -> str:
    """Write a figure with its interval; a side without a bound is a question mark."""
    if estimate is None:
        return ""
    low, high = (
        "?" if side is None else f"{side * scale:,.2f}" for side in (estimate.low, estimate.high)
    )
    return f"{estimate.value * scale:,.2f} ({low} to {high})"
