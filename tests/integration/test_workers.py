"""Several processes on one port and one PostgreSQL, as `statekeep serve --workers` starts them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import admin_service_pb2_grpc, agent_state_pb2, agent_state_service_pb2_grpc
from statekeep.v1 import agent_state_service_pb2 as pb
from tests.support.cli_server import CliServer, cli_server, start
from tests.support.postgres import Postgresql
from tests.support.savers import Saver
from tests.support.wire import new_run, save_request

pytestmark = [pytest.mark.postgresql, pytest.mark.asyncio(loop_scope="module")]

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Channels of one process to one address otherwise share a connection, and so a worker."""


@asynccontextmanager
async def two_workers(folder: Path, url: str) -> AsyncIterator[CliServer]:
    """Serve the optimized path with two workers."""
    async with cli_server(
        folder, "--workers", "2", database_url=url, ENABLE_OPTIMIZED_PERSISTENCE="true"
    ) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[CliServer]:
    """A server for tests that leave it as it is."""
    async with (
        postgresql.database() as url,
        two_workers(tmp_path_factory.mktemp("shared"), url) as server,
    ):
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def served(tmp_path: Path, postgresql_url: str) -> AsyncIterator[CliServer]:
    """A server of the test's own."""
    async with two_workers(tmp_path, postgresql_url) as server:
        yield server


@asynccontextmanager
async def channels(target: str, count: int) -> AsyncIterator[Sequence[grpc.aio.Channel]]:
    """Open connections: each is one worker's, and which one is up to the system."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(target, OWN_CONNECTION))
            for _ in range(count)
        ]


async def stats(channel: grpc.aio.Channel) -> admin_pb.GetStatsResponse:
    stub = admin_service_pb2_grpc.AdminServiceStub(channel)
    return await stub.GetStats(admin_pb.GetStatsRequest(), timeout=10, wait_for_ready=True)


async def all_workers(target: str) -> dict[int, int]:
    """Wait until all workers answer; return their process ids by their numbers."""
    async with asyncio.timeout(60), channels(target, 1) as (channel,):
        while True:
            with suppress(grpc.aio.AioRpcError):
                counted = await stats(channel)
                if not counted.silent_workers:
                    return {worker.index: worker.process_id for worker in counted.workers}
            await asyncio.sleep(0.02)


def gone(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


async def test_saves_are_spread_and_the_counts_add_up(shared: CliServer) -> None:
    async with channels(shared.target, 24) as opened:
        before = await stats(opened[0])
        for index, channel in enumerate(opened):
            run_id = new_run()
            stub = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
            saved = await stub.SaveAgentState(save_request(run_id=run_id))
            assert saved.outcome == agent_state_pb2.SAVE_OUTCOME_PERSISTED
            # The same state again, perhaps through the other worker: it is skipped all the same.
            again = agent_state_service_pb2_grpc.AgentStateServiceStub(opened[index - 1])
            skipped = await again.SaveAgentState(save_request(run_id=run_id))
            assert skipped.outcome == agent_state_pb2.SAVE_OUTCOME_SKIPPED
        answers = [await stats(channel) for channel in opened]
        info = await admin_service_pb2_grpc.AdminServiceStub(opened[0]).GetServerInfo(
            admin_pb.GetServerInfoRequest()
        )
    # With 24 connections one worker is left out once in eight million times.
    saves_before = sum(worker.saves for worker in before.workers)
    for counted in answers:
        assert [worker.index for worker in counted.workers] == [0, 1]
        assert len({worker.process_id for worker in counted.workers}) == 2
        assert all(worker.saves for worker in counted.workers)
        assert sum(worker.saves for worker in counted.workers) == saves_before + 48
        optimized = next(path for path in counted.paths if path.saves)
        assert (optimized.saves, optimized.skipped) == (saves_before + 48, saves_before / 2 + 24)
        assert not counted.silent_workers
    assert [pool.pool_size for pool in info.pools] == [20, 30]


async def test_pools_times_workers_are_compared_with_the_database(shared: CliServer) -> None:
    warnings = [line for line in shared.log.splitlines() if "max_connections" in line]
    assert len(warnings) == 1
    assert "pools of 2 processes may open 132 connections, the database allows 97" in warnings[0]


async def test_a_killed_worker_loses_nothing_and_comes_back(served: CliServer) -> None:
    before = await all_workers(served.target)
    async with channels(served.target, 8) as opened:
        savers = [Saver(channel, new_run()) for channel in opened]
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            for saver in savers:
                group.create_task(saver.work())
            while min(len(saver.acknowledged) for saver in savers) < 3:
                await asyncio.sleep(0.01)
            counted = await stats(opened[0])
            busiest = max(counted.workers, key=lambda worker: worker.saves)
            os.kill(busiest.process_id, signal.SIGKILL)
            await served.logged(f"Worker {busiest.index} serves again")
            reached = [len(saver.acknowledged) for saver in savers]
            while any(
                len(saver.acknowledged) < count + 3
                for saver, count in zip(savers, reached, strict=True)
            ):
                await asyncio.sleep(0.01)
            for saver in savers:
                saver.stopped = True
        failures = set[grpc.StatusCode]().union(*(saver.failures for saver in savers))
        assert failures == {grpc.StatusCode.UNAVAILABLE}
        after = await all_workers(served.target)
        assert after.keys() == before.keys()
        assert after[busiest.index] != before[busiest.index]
        for saver in savers:
            await saver.is_all_there()
    assert "was killed by signal 9" in served.log
    assert await served.end() == 0
    assert served.said.decode().startswith("statekeep serves on 127.0.0.1:")
    assert "2 workers" in served.said.decode()
    assert served.said.count(b"\n") == 1


async def test_sigterm_lets_the_calls_of_all_workers_finish(served: CliServer) -> None:
    workers = await all_workers(served.target)
    async with channels(served.target, 8) as opened:
        saves = [
            agent_state_service_pb2_grpc.AgentStateServiceStub(channel).SaveAgentState(
                save_request(run_id=f"run-{index}")
            )
            for index, channel in enumerate(opened)
        ]
        tasks = [asyncio.ensure_future(save) for save in saves]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # As a service manager does that tells every process of a service.
        for process_id in workers.values():
            os.kill(process_id, signal.SIGTERM)
        assert await served.end() == 0
        answered = await asyncio.gather(*tasks, return_exceptions=True)
    # A call that had arrived is answered, one that came too late is refused; none is cut off.
    for answer in answered:
        assert isinstance(answer, pb.SaveAgentStateResponse) or (
            isinstance(answer, grpc.aio.AioRpcError)
            and answer.code() is grpc.StatusCode.UNAVAILABLE
        )
    assert all(gone(process_id) for process_id in workers.values())


async def test_workers_do_not_outlive_their_supervisor(served: CliServer) -> None:
    workers = await all_workers(served.target)
    await served.end(signal.SIGKILL)
    async with asyncio.timeout(60):
        while not all(gone(process_id) for process_id in workers.values()):
            await asyncio.sleep(0.02)


async def test_a_worker_that_hangs_is_left_out_of_the_counts(shared: CliServer) -> None:
    workers = await all_workers(shared.target)
    async with channels(shared.target, 24) as opened:
        os.kill(workers[0], signal.SIGSTOP)
        try:
            asked = [asyncio.create_task(stats(channel)) for channel in opened]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            counted = done.pop().result()
            assert [worker.index for worker in counted.workers] == [1]
            assert counted.silent_workers == 1
        finally:
            os.kill(workers[0], signal.SIGCONT)
        await asyncio.gather(*asked)
    assert (await all_workers(shared.target)) == workers


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_server_on_the_port_is_refused(
    shared: CliServer, tmp_path: Path, postgresql_url: str, workers: str
) -> None:
    port = shared.port_file.read_text()
    second = tmp_path / "second"
    second.mkdir()
    refused = await start(second, "--port", port, "--workers", workers, database_url=postgresql_url)
    assert await asyncio.wait_for(refused.process.wait(), 60) == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in refused.log
    assert len(await all_workers(shared.target)) == 2


async def test_workers_refuse_the_port_of_a_single_server(
    tmp_path: Path, postgresql_url: str
) -> None:
    second = tmp_path / "second"
    second.mkdir()
    async with cli_server(tmp_path, database_url=postgresql_url) as single:
        port = single.port_file.read_text()
        refused = await start(second, "--port", port, "--workers", "2", database_url=postgresql_url)
        assert await asyncio.wait_for(refused.process.wait(), 60) == 2
    assert "Address already in use" in refused.log


async def test_sqlite_is_refused_in_a_sentence(tmp_path: Path, sqlite_url: str) -> None:
    refused = await start(tmp_path, "--port", "0", "--workers", "2", database_url=sqlite_url)
    assert await asyncio.wait_for(refused.process.wait(), 60) == 2
    assert refused.log == (
        "statekeep: error: --workers: several workers need PostgreSQL: a SQLite file has one "
        "writer at a time, so more processes would only wait for each other's locks\n"
    )


async def test_what_keeps_workers_from_starting_is_said_once(
    tmp_path: Path, postgresql: Postgresql
) -> None:
    async with postgresql.database(migrated=False) as url:
        refused = await start(tmp_path, "--port", "0", "--workers", "2", database_url=url)
        assert await asyncio.wait_for(refused.process.wait(), 60) == 3
    errors = [line for line in refused.log.splitlines() if line.startswith("statekeep: ")]
    assert len(errors) == 2
    assert errors[1] == "statekeep: hint: run `statekeep migrate`"
