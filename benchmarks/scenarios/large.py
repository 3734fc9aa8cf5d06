"""Large states beside small ones: how long small saves wait while 3 MB are saved over and over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from benchmarks.bench import Bench
from benchmarks.processes import Server, worker
from benchmarks.scenarios import MeasureRound

LARGE_BYTES = 3_000_000
SMALL_AT_ONCE = 8
RUNS = 64


@asynccontextmanager
async def open_large(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start a server, and a second load process for the large states."""
    async with (
        bench.statekeep("large", optimized=True) as server,
        worker("load", bench.folder) as second,
    ):
        large = replace(bench, loader=second)
        yield partial(_measure, bench, large, server)


async def _measure(bench: Bench, large: Bench, server: Server, number: int) -> None:
    async def small(contender: str, step: int) -> None:
        await bench.measure(
            contender,
            number,
            server,
            concurrency=SMALL_AT_ONCE,
            kind="save",
            prefix="small",
            runs=RUNS,
            first_step=step,
        )

    await small("small_alone", 2_000 * number)
    async with asyncio.TaskGroup() as group:
        group.create_task(
            large.measure(
                "large",
                number,
                server,
                concurrency=1,
                kind="save",
                prefix="large",
                runs=2,
                first_step=1_000 * number,
                state_bytes=LARGE_BYTES,
            )
        )
        await small("small_beside_large", 2_000 * number + 1_000)
