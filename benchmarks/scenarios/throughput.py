"""Saves, skips and loads under load, and everything that they are compared with on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from benchmarks.bench import ECHO, LOAD, Bench, rotated
from benchmarks.features import plain_variables
from benchmarks.processes import Server, rival_server
from benchmarks.scenarios import MeasureRound
from statekeep import AsyncClient

CONCURRENCIES = (64, 256)
RUNS = 1_024
WRITING_RIVALS = ("least", "prepared", "stored", "orm")
"""Each on a database of its own; `stored` needs our tables, the others make theirs."""
COUNTED_AFTER_S = 20
"""An idle connection reports its counts within ten seconds."""
NO_PLAIN = "not available yet: the server has no switch for compression"


@asynccontextmanager
async def open_throughput(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start every server, each on a database of its own, and save what is loaded and skipped."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        servers = {"echo": await enter(rival_server("echo", bench.folder))}
        for kind in WRITING_RIVALS:
            url = await enter(bench.database(migrated=kind == "stored"))
            servers[kind] = await enter(rival_server(kind, bench.folder, database_url=url))
        servers["standard"] = await enter(bench.statekeep("standard", optimized=False))
        servers["save"] = save = await enter(bench.statekeep("save", optimized=True))
        variables = plain_variables()
        if variables is None:
            bench.lacks(NO_PLAIN, "save_plain")
        else:
            servers["save_plain"] = await enter(
                bench.statekeep("save_plain", optimized=True, variables=variables)
            )
        await bench.send(save, kind="prepare", concurrency=16, prefix="kept", runs=RUNS)
        read = _HeadsRead(bench, save)
        await read.begin()
        yield partial(_measure, bench, servers, read)
        await read.check()


class _HeadsRead:
    """Checks with the database's own count that every skip and every load read a head.

    A cache that answered by itself would be faster, and could be wrong.
    """

    def __init__(self, bench: Bench, server: Server) -> None:
        self._bench, self._server = bench, server
        self._before = 0
        self.answers = 0

    async def begin(self) -> None:
        """Take the count before."""
        self._before = await self._count()

    async def check(self) -> None:
        """Compare; a connection reports what it read only after a while, so wait for it."""
        read = 0
        for _ in range(COUNTED_AFTER_S):
            read = await self._count() - self._before
            if read >= self.answers:
                return
            await asyncio.sleep(1.0)
        self._bench.problems.append(
            f"{self.answers:,} skips and loads were answered, and only {read:,} heads were read"
        )

    async def _count(self) -> int:
        rows = await self._bench.postgres().query(
            "SELECT sum(seq_tup_read) + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes "
            "WHERE relname = 'heads') AS count FROM pg_stat_user_tables WHERE relname = 'heads'",
            url=self._server.database_url,
        )
        return int(rows[0]["count"] or 0)


async def _measure(bench: Bench, servers: dict[str, Server], read: _HeadsRead, number: int) -> None:
    for concurrency in CONCURRENCIES:
        for contender in rotated((*servers, "skip", "load"), number):
            if contender == "skip":
                read.answers += await _checked(
                    bench, "skip", servers["save"], number, concurrency, kind="skip", prefix="kept"
                )
            elif contender == "load":
                read.answers += await _checked(
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
    if contender in {"echo", *WRITING_RIVALS}:
        path = {"path": ECHO} if contender == "echo" else {}
        await bench.measure(contender, number, server, concurrency=concurrency, **spec, **path)
    else:
        await _checked(bench, contender, server, number, concurrency, **spec)


async def _checked(
    bench: Bench, contender: str, server: Server, number: int, concurrency: int, **spec: object
) -> int:
    """Measure, compare the answers with what the server counted, and say how many they were."""
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
    return int(answer["total"])


async def _counts(client: AsyncClient) -> dict[str, int]:
    stats = await client.stats()
    return {
        "persisted": sum(path.persisted for path in stats.paths),
        "skipped": sum(path.skipped for path in stats.paths),
        "loads": sum(path.loads for path in stats.paths),
    }
