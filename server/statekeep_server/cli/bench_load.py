"""`statekeep bench load`: how much a running server takes, and how long its callers wait."""

import os
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statekeep_server.bench.load_plan import Kind, LoadPlan
from statekeep_server.cli import options
from statekeep_server.cli.connection import Connection, connected
from statekeep_server.cli.errors import FAILED, CommandFailed, say
from statekeep_server.cli.output import Format, console, print_json, print_table
from statekeep_server.cli.progress import Bar, progress_bar
from statekeep_server.cli.running import run_to_end

if TYPE_CHECKING:  # they bring gRPC, which `--help` does not need
    from statekeep_server.bench.load_figures import LoadFigures

CLOSED_CONCURRENCY, OPEN_CONCURRENCY = 64, 1_000
MOST_PROCESSES = 64
SMALLEST_STATE_BYTES = 256
LARGEST_STATE_BYTES = 3_500_000
"""More needs calls in chunks, which this command does not measure."""


KindOfCalls = Annotated[
    Kind,
    typer.Argument(
        metavar="KIND",
        help="save: every state is new. skip: nothing has changed. load: the newest state. "
        "mixed: one save and one load for two skips.",
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        "-c",
        metavar="N",
        help="Calls under way at once; with --rate the most. "
        f"[{CLOSED_CONCURRENCY}; with --rate {OPEN_CONCURRENCY}]",
        min=1,
        max=10_000,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="N",
        help="Begin N calls a second, whether earlier ones are answered or not, as agents do that "
        "know nothing of each other. Without it an answer begins the next call.",
        min=0.1,
    ),
]
Duration = Annotated[
    float, typer.Option("--duration", metavar="SECONDS", help="Measure so long.", min=0.1)
]
WarmUp = Annotated[
    float, typer.Option("--warm-up", metavar="SECONDS", help="Load so long before.", min=0.0)
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        help="Client processes. [as many as this machine has cores, 8 at most]",
        min=1,
        max=MOST_PROCESSES,
    ),
]
StateBytes = Annotated[
    int,
    typer.Option(
        "--state-bytes",
        metavar="N",
        help="The size of a state.",
        min=SMALLEST_STATE_BYTES,
        max=LARGEST_STATE_BYTES,
    ),
]
Runs = Annotated[
    int, typer.Option("--runs", metavar="N", help="Runs that take turns.", min=1, max=100_000)
]


@connected
def load_command(
    *,
    connection: Connection,
    kind: KindOfCalls = Kind.MIXED,
    concurrency: Concurrency = None,
    rate: Rate = None,
    duration_s: Duration = 10.0,
    warm_up_s: WarmUp = 1.0,
    processes: Processes = None,
    state_bytes: StateBytes = 10_240,
    runs: Runs = 1_000,
    output: options.Output = Format.TABLE,
) -> None:
    """Load a running server from several client processes, and say what it took.

    All runs have ids of their own that begin with `bench-load-`, and are deleted at the end. The
    command fails if a call failed. Look at the client's share of its cores first: a client that is
    the limit makes every server look alike.
    """
    processes = min(
        processes or min(8, os.cpu_count() or 1),
        concurrency or OPEN_CONCURRENCY,  # a process without a call would measure nothing
        runs,
    )
    plan = LoadPlan(
        kind=kind,
        processes=processes,
        concurrency=concurrency or (OPEN_CONCURRENCY if rate else CLOSED_CONCURRENCY),
        rate=rate,
        duration_s=duration_s,
        warm_up_s=warm_up_s,
        state_bytes=state_bytes,
        runs=runs,
        prefix=f"bench-load-{uuid.uuid4().hex[:8]}",
    )
    with progress_bar() as bar:
        figures = _run(plan, connection, bar)
    if output is Format.JSON:
        print_json(figures.to_json())
    else:
        _print(figures)
    for warning in figures.warnings:
        say(warning, label="warning")
    _complain(figures)


def _run(plan: LoadPlan, connection: Connection, bar: Bar) -> "LoadFigures":
    from statekeep_server.bench.load_run import LoadFailed, run_load

    async def running() -> "LoadFigures":
        async with connection.client() as client:
            return await run_load(
                plan, client, _for_processes(connection), on_stage=bar.stage, on_step=bar.advance
            )

    try:
        return run_to_end(running())
    except LoadFailed as error:
        raise CommandFailed(str(error)) from None


def _for_processes(connection: Connection) -> dict[str, Any]:
    return {
        "target": connection.target,
        "token": connection.token,
        "tls_ca": str(connection.tls_ca) if connection.tls_ca else None,
        "tls": connection.tls,
        "insecure": connection.insecure,
        "timeout_s": connection.timeout_s,
    }


def _print(figures: "LoadFigures") -> None:
    heads = ("call", "answered", "a second", "mean ms", "p50 ms", "p90 ms", "p99 ms", "failed")
    print_table(
        heads,
        [
            (
                each.name,
                each.calls,
                round(each.rate),
                each.mean_ms,
                each.p50_ms,
                each.p90_ms,
                each.p99_ms,
                each.errors,
            )
            for each in figures.calls
        ],
        right=heads[1:],
    )
    plan, shares = figures.plan, figures.client_shares
    pace = f"{plan.rate:,g} calls a second" if plan.rate else f"{plan.concurrency} under way"
    outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(figures.outcomes.items()))
    console().print(
        f"{pace}, states of {plan.state_bytes:,} bytes, {plan.runs:,} runs, "
        f"{plan.duration_s:g} s. Answers: {outcomes or 'none'}."
    )
    console().print(
        f"Client: {len(shares)} processes, {100 * sum(shares) / len(shares):.0f} % of a core each, "
        f"{100 * max(shares):.0f} % at most."
    )


def _complain(figures: "LoadFigures") -> None:
    """Fail if a call failed, and say how."""
    failed = sum(figures.errors.values())
    if failed or not figures.calls[-1].calls:
        kinds = "; ".join(
            f"{count:,} {kind}: {figures.first_errors[kind]}"
            for kind, count in sorted(figures.errors.items(), key=lambda item: -item[1])
        )
        raise CommandFailed(f"{failed:,} calls failed: {kinds or 'none was answered'}", code=FAILED)
