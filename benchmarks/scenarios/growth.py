"""How the cost of a save grows with the size of a state, the history, concurrency and workers."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import growth
from benchmarks.bench import Bench, Plan, rotated
from benchmarks.processes import Server
from benchmarks.scenarios import MeasureRound

ROUNDS = 3
"""More would take longer than everything else together."""
RUNS = 1_024
LARGE_RUNS = 64
"""Of states of 100 kB and more: the client makes them in memory."""
HISTORY_RUNS = {1: 2_048, 10: 1_024, 100: 128, 1_000: 16, 10_000: 2}
"""How many runs have so many versions: enough that those which are measured hardly grow meanwhile,
and 20,000 saves for each length at most."""
CONNECTIONS = 16
"""With several workers: the system spreads connections over them, not calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value of one axis, and what the load process is told for it."""

    contender: str
    concurrency: int
    workers: int = 1
    spec: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def open_growth(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start a server for each number of workers, and save the histories."""
    async with AsyncExitStack() as stack:
        servers = {
            workers: await stack.enter_async_context(
                bench.statekeep(
                    f"growth-{workers}",
                    optimized=True,
                    variables={"STATEKEEP_WORKERS": str(workers)},
                )
            )
            for workers in growth.WORKERS
        }
        points = tuple(points_of(bench.plan))
        for versions, runs in _histories(bench.plan):
            await bench.send(
                servers[1],
                kind="prepare",
                concurrency=64,
                prefix=f"history{versions}",
                runs=runs,
                saves=runs * versions,
            )
        yield partial(_measure, bench, servers, points)


def _histories(plan: Plan) -> Iterator[tuple[int, int]]:
    """How long histories are, and how many runs have one; a short benchmark has no long ones."""
    longest = plan.scaled(growth.HISTORIES[-1])
    for versions in growth.HISTORIES:
        if versions <= longest:
            yield versions, plan.scaled(HISTORY_RUNS[versions], least=2)


def points_of(plan: Plan) -> Iterator[Point]:
    """Everything that a round measures."""
    for size in growth.SIZES:
        yield Point(
            contender=growth.by_size(size),
            concurrency=growth.SIZES_AT,
            spec={
                "prefix": f"size{size}",
                "state_bytes": size,
                "runs": RUNS if size < 100 * growth.KIB else LARGE_RUNS,
            },
        )
    for versions, runs in _histories(plan):
        yield Point(
            contender=growth.by_history(versions),
            concurrency=growth.HISTORIES_AT,
            spec={"prefix": f"history{versions}", "runs": runs},
        )
    for concurrency in growth.CONCURRENCIES:
        yield Point(
            contender=growth.BY_CONCURRENCY,
            concurrency=concurrency,
            spec={"prefix": f"concurrency{concurrency}"},
        )
    for workers in growth.WORKERS:
        for concurrency in growth.WORKERS_AT:
            yield Point(
                contender=growth.by_workers(workers),
                concurrency=concurrency,
                workers=workers,
                spec={"prefix": f"workers{concurrency}", "connections": CONNECTIONS},
            )


async def _measure(
    bench: Bench, servers: dict[int, Server], points: tuple[Point, ...], number: int
) -> None:
    if number >= (1 if bench.plan.is_quick else ROUNDS):
        return
    for point in rotated(points, number):
        await bench.measure(
            point.contender,
            number,
            servers[point.workers],
            concurrency=point.concurrency,
            kind="save",
            # Beyond what any history has, so that no state is saved twice in a row.
            first_step=100_000 + 10_000 * number,
            **{"runs": RUNS, **point.spec},
        )
