"""Memory: both paths after the same load, of many times the runs that the caches hold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import psutil

from benchmarks.bench import Bench, rotated
from benchmarks.processes import Server
from benchmarks.scenarios import MeasureRound

RUNS = 50_000
"""Each is saved once. The caches hold about 1,000 heads of such runs, and are full for long."""
STATE_BYTES = 1_024
BUSY_RUNS = 2_000
BUSY_SAVES = 3
"""Of each busy run, which comes back before it is forgotten: its payloads are remembered."""
CONCURRENCY = 64
ROUNDS = 2
"""Memory hardly differs from one to the next."""


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
            await _prepare(bench, server, "memory", bench.plan.scaled(RUNS), 1, STATE_BYTES)
            after = resident_bytes(server.pid)
            runs = bench.plan.scaled(BUSY_RUNS)
            await _prepare(bench, server, "busy", runs, BUSY_SAVES, bench.plan.state_bytes)
            bench.note(
                f"memory_{path}",
                0,
                number,
                memory_bytes=after,
                started_bytes=before,
                busy_bytes=resident_bytes(server.pid),
            )


async def _prepare(
    bench: Bench, server: Server, prefix: str, runs: int, saves: int, state_bytes: int
) -> None:
    """Save every run so many times, the runs in turns."""
    await bench.send(
        server,
        kind="prepare",
        concurrency=CONCURRENCY,
        prefix=prefix,
        runs=runs,
        saves=runs * saves,
        state_bytes=state_bytes,
    )


def resident_bytes(pid: int) -> int:
    """What a process tree has in memory and shares with no other."""
    root = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (root, *root.children(recursive=True)))
