"""Write-behind with real servers that crash, stop and share a database."""

import asyncio
from typing import Any

import pytest

from statekeep import AsyncClient, NotFound, SaveResult, StatekeepError
from tests.support.server_process import ServerProcess

NEVER_S = 3_600.0
RUNS = [f"run-{number}" for number in range(20)]


def client_of(server: ServerProcess) -> AsyncClient:
    return AsyncClient(server.target, timeout_s=60)


async def late(client: AsyncClient, run: str, step: int) -> SaveResult:
    return await client.save(run, {"step": step}, checkpoint_type="AUTO", write_behind=True)


async def steps(client: AsyncClient) -> list[int]:
    return [(await client.load(run)).state["step"] for run in RUNS]


async def test_a_crash_loses_what_is_held_and_nothing_else(database_url: str) -> None:
    async with ServerProcess(
        database_url, optimized=True, write_behind_max_age_s=NEVER_S
    ) as server:
        async with client_of(server) as client:
            for run in RUNS:
                assert not (await late(client, run, 0)).buffered  # the first is durable
                assert (await late(client, run, 1)).buffered
            for run in RUNS[::2]:
                assert (await client.save(run, {"step": 2})).version == 3
                assert (await late(client, run, 3)).version is None
            stats = (await client.stats()).write_behind
            assert (stats.pending, stats.persisted) == (len(RUNS), len(RUNS) // 2)
            await server.kill()
        await server.start()
        async with client_of(server) as client:
            assert await steps(client) == [2, 0] * (len(RUNS) // 2)


async def test_acknowledged_durable_saves_outlive_a_crash(database_url: str) -> None:
    """Saves of both kinds until the server dies: what was not buffered is there."""
    durable: dict[tuple[str, int], int] = {}

    async def save_until_it_dies(client: AsyncClient, run: str) -> None:
        for step in range(10_000):
            try:
                if step % 5:
                    result = await late(client, run, step)
                else:
                    result = await client.save(run, {"step": step})
            except StatekeepError:
                return
            if result.version is not None:
                durable[run, result.version] = step

    async with ServerProcess(database_url, optimized=True, write_behind_max_age_s=0.02) as server:
        async with client_of(server) as client, asyncio.TaskGroup() as group:
            for run in RUNS[:4]:
                group.create_task(save_until_it_dies(client, run))
            while len(durable) < 40:
                await asyncio.sleep(0.01)
            await server.kill()
        await server.start()
        async with client_of(server) as client:
            for (run, version), step in durable.items():
                assert (await client.load(run, version=version)).state["step"] == step
            for run in RUNS[:4]:
                versions = [each.version async for each in client.list_snapshots(run)]
                stored = [
                    (await client.load(run, version=version)).state["step"]
                    for version in sorted(versions)
                ]
                assert stored == sorted(set(stored))


async def test_what_was_written_in_time_outlives_a_crash(database_url: str) -> None:
    async with ServerProcess(database_url, optimized=True, write_behind_max_age_s=0.02) as server:
        async with client_of(server) as client:
            for run in RUNS:
                for step in range(3):
                    await late(client, run, step)
            while (await client.stats()).write_behind.pending:
                await asyncio.sleep(0.01)
            await server.kill()
        await server.start()
        async with client_of(server) as client:
            assert await steps(client) == [2] * len(RUNS)


async def test_a_server_that_is_told_to_stop_loses_nothing(database_url: str) -> None:
    async with ServerProcess(
        database_url, optimized=True, write_behind_max_age_s=NEVER_S
    ) as server:
        async with client_of(server) as client:
            for run in RUNS:
                for step in range(3):
                    await late(client, run, step)
        assert await server.stop() == 0
        await server.start()
        async with client_of(server) as client:
            assert await steps(client) == [2] * len(RUNS)


@pytest.mark.postgresql
async def test_two_servers_never_write_over_each_other(postgresql_url: str) -> None:
    options: Any = {"optimized": True, "write_behind_max_age_s": NEVER_S}
    async with (
        ServerProcess(postgresql_url, **options) as one,
        ServerProcess(postgresql_url, **options) as other,
        client_of(one) as first,
        client_of(other) as second,
    ):
        for run in RUNS:
            await first.save(run, {"step": 0})
            assert (await late(first, run, 1)).buffered
        for run in RUNS[::2]:
            assert (await second.save(run, {"step": 2})).version == 2
        assert await second.delete_run(RUNS[1]) == 1
        # The first one writes what it holds before it reads.
        for run in RUNS[::2]:
            assert (await first.load(run)).state == {"step": 2}
        for run in RUNS[3::2]:
            assert (await first.load(run)).state == {"step": 1}
        with pytest.raises(NotFound):
            await first.load(RUNS[1])
        stats = (await first.stats()).write_behind
        assert stats.superseded == len(RUNS) // 2 + 1
        assert stats.persisted == len(RUNS) // 2 - 1
        assert (stats.pending, stats.lost) == (0, 0)
        # And goes on from there.
        assert (await late(first, RUNS[0], 3)).buffered
        assert (await second.load(RUNS[0])).state == {"step": 2}
        assert (await first.load(RUNS[0])).version == 3
