"""Memory: both paths after the same load, of many times the runs that the caches hold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import psutil

from benchmarks.bench import Bench, rotated
from benchmarks.scenarios import MeasureRound

RUNS = 50_000
"""The caches hold about 2,000 by default: they have been full for long."""
STATE_BYTES = 1_024
CONCURRENCY = 64
ROUNDS = 2
"""Each takes half a minute, and memory hardly differs from one to the next."""


@asynccontextmanager
async def open_memory(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Servers are started for the one measurement and ended after it."""
    yield partial(_measure, bench)


async def _measure(bench: Bench, number: int) -> None:
    if number >= (1 if bench.plan.is_quick else ROUNDS):
        return
    for path in rotated(("standard", "optimized"), number):
        async with bench.statekeep(f"memory_{path}", optimized=path == "optimized") as server:
            before = resident_bytes(server.pid)
            await bench.send(
                server,
                kind="prepare",
                concurrency=CONCURRENCY,
                prefix="memory",
                runs=bench.plan.scaled(RUNS),
                state_bytes=STATE_BYTES,
            )
            bench.note(
                f"memory_{path}",
                0,
                number,
                memory_bytes=resident_bytes(server.pid),
                started_bytes=before,
            )


def resident_bytes(pid: int) -> int:
    """What a process tree has in memory and shares with no other."""
    root = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (root, *root.children(recursive=True)))
