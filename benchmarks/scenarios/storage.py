"""Bytes on disk: runs that grow, and the versions of a long run, each of which can be loaded."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import orjson

from benchmarks.bench import LOAD, Bench, rotated
from benchmarks.growing import Which, growing_states
from benchmarks.load import write_script
from benchmarks.processes import Server, rival_server, worker
from benchmarks.scenarios import MeasureRound
from benchmarks.scenarios.rivals import NO_LANGGRAPH, has_langgraph
from benchmarks.states import AUTO, make_states, save_request

VERSIONS = 10_000
WHICH: tuple[Which, ...] = ("growing", "after")


@asynccontextmanager
async def open_sizes(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Nothing is kept open: what is stored is the same in every round, so once is enough."""
    yield partial(_measure_sizes, bench)


async def _measure_sizes(bench: Bench, number: int) -> None:
    if number:
        return
    for which in WHICH:
        await _ours(bench, which)
        if has_langgraph():
            await _langgraph(bench, which)
        else:
            bench.lacks(NO_LANGGRAPH, f"{which}_langgraph")


async def _ours(bench: Bench, which: Which) -> None:
    """Save growing runs, and weigh the states, the database, and each of its tables."""
    json_bytes = saves = 0
    agents: list[list[bytes]] = []
    for run_id, states in growing_states(bench.recording, which):
        bodies = []
        for step, state in enumerate(states):
            data = orjson.dumps(state)
            json_bytes += len(data)
            bodies.append(save_request(run_id, data, request_id=f"{run_id}-{step}"))
        saves += len(bodies)
        agents.append(bodies)
    script = bench.folder / "sizes.script"
    write_script(script, agents)
    async with bench.statekeep(f"sizes-{which}", optimized=True) as server:
        empty = await bench.postgres().table_bytes(server.database_url)
        await bench.send(
            server, kind="script", concurrency=len(agents), prefix="", script=str(script)
        )
        tables = await bench.postgres().table_bytes(server.database_url)
    bench.note(f"{which}_json", 0, 0, database_bytes=json_bytes, rows_bytes=json_bytes, saves=saves)
    _note_sizes(bench, which, tables, empty)


async def _langgraph(bench: Bench, which: Which) -> None:
    async with bench.database() as url, worker("rivals.langgraph", bench.folder) as langgraph:
        await langgraph.ask(
            {"config": "plain", "url": url, "recording": str(bench.recording), "grow": "nothing"}
        )
        empty = await bench.postgres().table_bytes(url)
        await langgraph.ask(
            {"config": "plain", "url": url, "recording": str(bench.recording), "grow": which}
        )
        tables = await bench.postgres().table_bytes(url)
    _note_sizes(bench, f"{which}_langgraph", tables, empty)


def _note_sizes(bench: Bench, name: str, tables: dict[str, int], empty: dict[str, int]) -> None:
    """Keep the size of everything, of each table, and what is left without the empty tables."""
    whole, fixed = sum(tables.values()), sum(empty.values())
    bench.note(
        name,
        0,
        0,
        database_bytes=whole,
        empty_bytes=fixed,
        rows_bytes=whole - fixed,
        **{f"{table}_bytes": size for table, size in tables.items()},
    )


@asynccontextmanager
async def open_versions(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Save one long run, and rows of the same size beside it, behind the same front."""
    count = bench.plan.scaled(VERSIONS, least=200)
    states = make_states(bench.recording, state_bytes=bench.plan.state_bytes)
    saves = [
        save_request(
            "versions-0",
            states.state("versions-0", step),
            request_id=f"versions-{step}",
            checkpoint_type=AUTO,
        )
        for step in range(count)
    ]
    script = bench.folder / "versions.script"
    write_script(script, [saves])
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = await enter(bench.database())
        rows = await enter(rival_server("row", bench.folder, database_url=url))
        server = await enter(bench.statekeep("versions", optimized=True))
        for each in (server, rows):
            await bench.send(each, kind="script", concurrency=1, prefix="", script=str(script))
        deepest = await _deepest(bench, server, count)
        yield partial(_measure_versions, bench, {"version": server, "raw_row": rows}, deepest)


async def _deepest(bench: Bench, server: Server, count: int) -> tuple[int, ...]:
    """Versions at the greatest chain depth, spread over the run; any where there are no chains."""
    columns = await bench.postgres().query(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_name = 'snapshots' AND column_name LIKE '%depth%'",
        url=server.database_url,
    )
    versions = list(range(1, count + 1))
    if columns:
        depth = columns[0]["column_name"]
        found = await bench.postgres().query(
            f"SELECT version FROM snapshots WHERE run_id = 'versions-0' AND {depth} = "  # noqa: S608 -- the name comes from the catalogue
            f"(SELECT max({depth}) FROM snapshots WHERE run_id = 'versions-0')",
            url=server.database_url,
        )
        versions = [row["version"] for row in found]
    # Far apart, so that one load does not warm up the chain of the next.
    random.Random(1).shuffle(versions)
    return tuple(versions)


async def _measure_versions(
    bench: Bench, servers: dict[str, Server], versions: tuple[int, ...], number: int
) -> None:
    """Load versions that no earlier round has loaded, as far as there are enough."""
    at = number * 2_000 % len(versions)
    mine = versions[at:] + versions[:at]
    for contender in rotated(tuple(servers), number):
        await bench.measure(
            contender,
            number,
            servers[contender],
            concurrency=1,
            kind="version",
            prefix="versions",
            path=LOAD,
            versions=mine,
        )
