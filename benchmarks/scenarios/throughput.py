"""Saves, skips and loads under load, and everything that they are compared with on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from benchmarks.bench import ECHO, LOAD, Bench, rotated
from benchmarks.features import plain_variables
from benchmarks.processes import Server, rival_server
from benchmarks.scenarios import MeasureRound
from statekeep import AsyncClient

CONCURRENCIES = (64, 256)
WITH_LANGGRAPH = 16
RUNS = 1_024
NO_PLAIN = "not available yet: the server has no switch for compression"


@asynccontextmanager
async def open_throughput(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start every server, each on a database of its own, and save what is loaded and skipped."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = await enter(bench.database())
        orm = await enter(rival_server("orm", bench.folder, database_url=url))
        echo = await enter(rival_server("echo", bench.folder))
        standard = await enter(bench.statekeep("standard", optimized=False))
        save = await enter(bench.statekeep("save", optimized=True))
        servers = {"echo": echo, "orm": orm, "standard": standard, "save": save}
        variables = plain_variables()
        if variables is None:
            bench.lacks(NO_PLAIN, "save_plain")
        else:
            servers["save_plain"] = await enter(
                bench.statekeep("save_plain", optimized=True, variables=variables)
            )
        await bench.send(save, kind="prepare", concurrency=16, prefix="kept", runs=RUNS)
        yield partial(_measure, bench, servers)


async def _measure(bench: Bench, servers: dict[str, Server], number: int) -> None:
    for contender in rotated(("save", "echo", "standard"), number):
        await _save(bench, contender, servers[contender], WITH_LANGGRAPH, number)
    for concurrency in CONCURRENCIES:
        for contender in rotated((*servers, "skip", "load"), number):
            if contender == "skip":
                await _checked(
                    bench, "skip", servers["save"], number, concurrency, kind="skip", prefix="kept"
                )
            elif contender == "load":
                await _checked(
                    bench,
                    "load",
                    servers["save"],
                    number,
                    concurrency,
                    kind="load",
                    prefix="kept",
                    path=LOAD,
                )
            else:
                await _save(bench, contender, servers[contender], concurrency, number)


async def _save(
    bench: Bench, contender: str, server: Server, concurrency: int, number: int
) -> None:
    """Save distinct states to runs that take turns; every round goes on with the same runs."""
    spec = {"kind": "save", "prefix": f"save{concurrency}", "first_step": 1_000 * number}
    if contender in {"echo", "orm"}:
        path = {"path": ECHO} if contender == "echo" else {}
        await bench.measure(contender, number, server, concurrency=concurrency, **spec, **path)
    else:
        await _checked(bench, contender, server, number, concurrency, **spec)


async def _checked(
    bench: Bench, contender: str, server: Server, number: int, concurrency: int, **spec: object
) -> None:
    """Measure, and compare the answers with what the server counted."""
    async with AsyncClient(server.target, token="") as client:
        before = await _counts(client)
        answer = await bench.measure(
            contender, number, server, concurrency=concurrency, runs=RUNS, **spec
        )
        after = await _counts(client)
    what = {"skip": "skipped", "load": "loads"}.get(contender, "persisted")
    counted = after[what] - before[what]
    if counted != answer["total"]:
        bench.problems.append(
            f"{contender} at {concurrency}, round {number}: the server counted {counted:,} "
            f"{what}, the client {answer['total']:,} answers"
        )


async def _counts(client: AsyncClient) -> dict[str, int]:
    stats = await client.stats()
    return {
        "persisted": sum(path.persisted for path in stats.paths),
        "skipped": sum(path.skipped for path in stats.paths),
        "loads": sum(path.loads for path in stats.paths),
    }
