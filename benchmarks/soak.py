"""A long load, for what only time shows: `make soak`.

Saves of 1 kB go to runs in turns; the memory of the server is compared early and at the end. Writes
`soak.json` beside the results, which the table of `make bench` then shows.
"""

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson

from benchmarks.__main__ import recording_of
from benchmarks.bench import Bench, Plan, open_bench, say
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.postgresql import run_postgresql
from benchmarks.processes import ROOT, Server
from benchmarks.scenarios.memory import resident_bytes
from benchmarks.targets import TARGETS, evaluate

CONCURRENCY = 64
STATE_BYTES = 1_024
PARTS = 10
"""The first tenth is the level that the end is compared with."""


def main() -> None:
    """Save, print the memory after each part, write the result."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--saves", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    recording = recording_of(arguments.recording)
    # Whoever ends the soak ends its server too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with run_postgresql() as postgresql:

        async def run() -> None:
            async with open_bench(Plan(), recording, postgresql) as bench:
                await _soak(bench, arguments.saves, arguments.runs)
                _write(bench, arguments)

        asyncio.run(run())


async def _soak(bench: Bench, saves: int, runs: int) -> None:
    async with bench.statekeep("soak", optimized=True) as server:
        bench.note("soak_start", 0, 0, memory_bytes=resident_bytes(server.pid))
        saved = 0
        for part in range(PARTS):
            saved += await _part(bench, server, part, saves // PARTS, runs)
            memory_bytes = resident_bytes(server.pid)
            say(f"{saved:>10,} saves: {memory_bytes / 1024**2:,.1f} MiB")
            contender = {0: "soak_begin", PARTS - 1: "soak_end"}.get(part, f"soak_{part}")
            bench.note(contender, 0, 0, memory_bytes=memory_bytes, saves=saved)


async def _part(bench: Bench, server: Server, part: int, saves: int, runs: int) -> int:
    answer = await bench.send(
        server,
        kind="prepare",
        concurrency=CONCURRENCY,
        prefix="soak",
        runs=runs,
        saves=saves,
        first_save=part * saves,
        state_bytes=STATE_BYTES,
    )
    return int(answer["total"])


def _write(bench: Bench, arguments: argparse.Namespace) -> None:
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "commit": describe_commit(ROOT),
        "saves": arguments.saves,
        "runs": arguments.runs,
        "problems": bench.problems,
        "rounds": bench.rounds.to_json(),
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "soak.json").write_bytes(
        orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n"
    )
    target = next(each for each in TARGETS if each.numerator.contender == "soak_end")
    outcome = evaluate(target, bench.rounds, {})
    sys.stdout.write(f"{target.name}: {outcome.measured:.3f} ×, target {target.wanted}\n")
    for problem in bench.problems:
        say(f"doubtful: {problem}")


if __name__ == "__main__":
    main()
