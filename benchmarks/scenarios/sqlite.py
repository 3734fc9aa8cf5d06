"""SQLite: statekeep, a session per save behind the same front, and LangGraph's saver."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from benchmarks.bench import Bench, rotated
from benchmarks.processes import Server, Worker, rival_server, statekeep_server, worker
from benchmarks.scenarios import MeasureRound
from benchmarks.scenarios.rivals import NO_LANGGRAPH, has_langgraph, measure_langgraph

CONCURRENCY = 64
RUNS = 512


@asynccontextmanager
async def open_sqlite(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start each server on a file of its own, all in one folder."""

    def url(name: str) -> str:
        return f"sqlite+aiosqlite:///{bench.folder / name}.db"

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        servers = {
            "sqlite": await enter(
                statekeep_server(
                    "sqlite", bench.folder, database_url=url("statekeep"), optimized=True
                )
            ),
            "sqlite_orm": await enter(rival_server("orm", bench.folder, database_url=url("orm"))),
        }
        langgraph = None
        if has_langgraph():
            langgraph = await enter(worker("rivals.langgraph", bench.folder))
        else:
            bench.lacks(NO_LANGGRAPH, "langgraph_sqlite")
        yield partial(_measure, bench, servers, langgraph)


async def _measure(
    bench: Bench, servers: dict[str, Server], langgraph: Worker | None, number: int
) -> None:
    for contender in rotated(tuple(servers), number):
        await bench.measure(
            contender,
            number,
            servers[contender],
            concurrency=CONCURRENCY,
            kind="save",
            prefix="sqlite",
            runs=RUNS,
            first_step=1_000 * number,
        )
    if langgraph is not None:
        file = str(bench.folder / "langgraph.db")
        await measure_langgraph(bench, langgraph, "sqlite", file, CONCURRENCY, number)
