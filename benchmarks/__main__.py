"""Measure statekeep and its rivals side by side: `python -m benchmarks`, or `make bench`."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks.bench import Bench, Plan, open_bench, say
from benchmarks.beside import BESIDE
from benchmarks.documents import PAGE, write_sections
from benchmarks.elsewhere import add_elsewhere
from benchmarks.growth import render_growth
from benchmarks.machine import describe_commit, describe_machine, describe_versions
from benchmarks.measurements import QUIET_CORES, Key, Rounds, median
from benchmarks.plots import can_plot, plot
from benchmarks.postgresql import NOT_STARTED, Postgresql, run_postgresql
from benchmarks.processes import ROOT, DidNotStart
from benchmarks.profiles import profile
from benchmarks.report import (
    render_beside,
    render_contenders,
    render_sizes,
    render_targets,
    to_json,
)
from benchmarks.scenarios import MeasureRound, Scenario
from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.scenarios.rivals import dapr_missing
from benchmarks.targets import TARGETS, evaluate
from statekeep_server.bench.record import record
from statekeep_server.bench.trajectories import (
    TrajectoryError,
    read_trajectories,
    write_trajectories,
)

QUICK = Plan(rounds=2, measure_s=0.7, warm_up_s=0.2, scale=0.2)
RESULTS = ROOT / "benchmarks" / "results"
GROWTH_PICTURE = "Processor time and duration of a save by size, history, concurrency and workers"
NO_POSTGRESQL = "PostgreSQL could not be started here"


def main() -> None:
    """Measure, print the table, write the results."""
    arguments = _parse(sys.argv[1:])
    plan = _plan(arguments)
    recording = recording_of(arguments.recording)
    arguments.results.mkdir(parents=True, exist_ok=True)
    # Whoever ends the benchmark ends its servers too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _postgresql(plan) as postgresql:
        try:
            asyncio.run(_run(plan, recording, arguments.results, postgresql, arguments.profile))
        except DidNotStart as error:
            sys.exit(f"a server or worker ended: {error}")


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--recording", type=Path, help="recorded work, .jsonl.gz")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a first look in about seven minutes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--scale", type=float, help="of what is counted and not timed")
    parser.add_argument("--scenarios", default="", help=", ".join(each.name for each in SCENARIOS))
    parser.add_argument("--rivals", default="", help="dapr")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    return parser.parse_args(words)


def _plan(arguments: argparse.Namespace) -> Plan:
    base = QUICK if arguments.quick else Plan()
    only = tuple(filter(None, arguments.scenarios.split(",")))
    unknown = set(only) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        sys.exit(f"there is no scenario {', '.join(sorted(unknown))}")
    return Plan(
        rounds=base.rounds if arguments.rounds is None else arguments.rounds,
        measure_s=base.measure_s if arguments.seconds is None else arguments.seconds,
        warm_up_s=base.warm_up_s,
        scale=base.scale if arguments.scale is None else arguments.scale,
        rivals=tuple(filter(None, arguments.rivals.split(","))),
        only=only,
    )


def recording_of(path: Path | None) -> Path:
    """The recording, made from the demo's agent where none is given. Exits if it is none."""
    made = ROOT / "build" / "recording.jsonl.gz"
    path = path or made
    if path.resolve() == made and not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_trajectories(path, record(runs=40, steps=40, seed=1))
    try:
        read_trajectories(path, limit=1)
    except TrajectoryError as error:
        sys.exit(str(error))
    return path.resolve()


@contextmanager
def _postgresql(plan: Plan) -> Iterator[Postgresql | None]:
    wanted = [each for each in SCENARIOS if not plan.only or each.name in plan.only]
    if not any(scenario.postgresql for scenario in wanted):
        yield None
        return
    started = run_postgresql()
    try:
        postgresql = started.__enter__()
    except NOT_STARTED as error:
        say(f"{NO_POSTGRESQL}: {type(error).__name__}: {error}")
        yield None
        return
    try:
        yield postgresql
    finally:
        started.__exit__(None, None, None)


async def _run(
    plan: Plan, recording: Path, results: Path, postgresql: Postgresql | None, profiled: bool
) -> None:
    about: dict[str, object] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "commit": describe_commit(ROOT),
        "versions": describe_versions(),
        "postgresql": await postgresql.settings() if postgresql else None,
        "recording": recording.name,
        "plan": {"rounds": plan.rounds, "measure_s": plan.measure_s, "scale": plan.scale},
    }
    async with open_bench(plan, recording, postgresql) as bench:
        dapr_missing(bench)
        await _measure_all(bench)
        if profiled and postgresql is not None:
            await profile(bench, results)
        add_elsewhere(bench, results)
        bench.problems.extend(crowded(bench.rounds))
        outcomes = [evaluate(target, bench.rounds, bench.missing) for target in TARGETS]
        beside = [evaluate(each, bench.rounds, bench.missing) for each in BESIDE]
        found = to_json(bench.rounds, outcomes, beside, bench.problems, about)
        _write(results / "latest.json", orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
        sizes = render_sizes(bench.rounds)
        tables = [
            render_targets(outcomes),
            render_beside(beside),
            render_contenders(bench.rounds),
            render_growth(bench.rounds),
        ]
        doubts = "\n".join(f"- Doubtful: {problem}" for problem in bench.problems)
        text = "\n\n".join(filter(None, [_heading(about), doubts, *tables, sizes]))
        _write(results / "latest.md", f"{text}\n".encode())
        if results == RESULTS:
            write_sections(PAGE, _sections(about, doubts, tables))
        if can_plot():
            plot(bench.rounds, outcomes, results)
        sys.stdout.write("\n\n".join(filter(None, reversed(tables))) + "\n")
        for problem in bench.problems:
            say(f"doubtful: {problem}")


async def _measure_all(bench: Bench) -> None:
    """Open every scenario, then go through all of them once in each round."""
    plan = bench.plan
    async with AsyncExitStack() as stack:
        opened: list[tuple[Scenario, MeasureRound]] = []
        for scenario in SCENARIOS:
            if plan.only and scenario.name not in plan.only:
                bench.lacks("not asked for", *scenario.contenders)
            elif scenario.postgresql and bench.postgresql is None:
                bench.lacks(NO_POSTGRESQL, *scenario.contenders)
            else:
                say(f"preparing: {scenario.name}")
                try:
                    measure = await stack.enter_async_context(scenario.open(bench))
                except DidNotStart as error:
                    _give_up(bench, scenario, error)
                else:
                    opened.append((scenario, measure))
        for number in range(plan.rounds):
            for scenario, measure in tuple(opened):
                say(f"round {number + 1} of {plan.rounds}: {scenario.name}")
                try:
                    await measure(number)
                except DidNotStart as error:
                    _give_up(bench, scenario, error)
                    opened.remove((scenario, measure))


def _give_up(bench: Bench, scenario: Scenario, error: DidNotStart) -> None:
    """Go on without a scenario: the others are worth measuring, and its rows say why."""
    bench.problems.append(f"{scenario.name} ended early: {error}")
    bench.lacks(f"failed: {error}", *scenario.contenders)


def crowded(rounds: Rounds) -> list[str]:
    """Name the rounds in which other programs took much of the machine."""
    taken: dict[int, list[float]] = {}
    for contender, concurrency in rounds.contenders():
        key = Key(contender, "foreign_cores", concurrency)
        for number, cores in rounds.by_round(key).items():
            taken.setdefault(number, []).append(cores)
    found = []
    for number, measurements in sorted(taken.items()):
        loud = [cores for cores in measurements if cores > QUIET_CORES]
        if loud:
            found.append(
                f"round {number + 1} was crowded: other programs took more than {QUIET_CORES} "
                f"cores during {len(loud)} of {len(measurements)} measurements, "
                f"{median(loud):.1f} in their middle and {max(loud):.1f} at most; rates are too "
                "low then, and ratios between contenders of unlike cost are off"
            )
    return found


def _sections(about: dict[str, object], doubts: str, tables: Sequence[str]) -> dict[str, str]:
    """What the page about performance shows of a run."""
    targets, beside, _, growth = tables
    if growth and can_plot():
        growth = f"![{GROWTH_PICTURE}](../benchmarks/results/growth.png)\n\n{growth}"
    return {
        "targets": "\n\n".join(filter(None, [_heading(about), doubts, targets])),
        "beside": beside,
        "growth": growth,
    }


def _heading(about: dict[str, object]) -> str:
    machine: Any = about["machine"]
    return (
        f"Commit {about['commit']}, {about['date']}; {machine['processor']}, {machine['cores']} "
        f"cores, {machine['memory_gib']} GiB, {machine['system']}; recording {about['recording']}."
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.replace(path)


if __name__ == "__main__":
    main()
