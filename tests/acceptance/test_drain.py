"""A server that is told to stop finishes what it has begun, and waits for nobody who hangs."""

import asyncio
import itertools
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy.ext.asyncio import create_async_engine

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep.v1 import agent_state_service_pb2_grpc
from tests.support.cli_server import CliServer, cli_server, start
from tests.support.postgres import run_postgresql
from tests.support.savers import advance, saving
from tests.support.wire import save_request

FOREVER = {"STATEKEEP_DRAIN_TIMEOUT": "3600", "ENABLE_OPTIMIZED_PERSISTENCE": "true"}
"""A drain that waited for anybody who hangs would outlast any test."""


async def test_sigterm_during_saves_loses_nothing_and_waits_for_no_idle_client(
    tmp_path: Path, sqlite_url: str
) -> None:
    async with (
        cli_server(tmp_path, database_url=sqlite_url, **FOREVER) as server,
        grpc.aio.insecure_channel(server.target) as channel,
        AsyncExitStack() as stack,
    ):
        stub: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        # One who sent a save and then says nothing any more, and one who only watches.
        idle = stub.SaveAgentStateStream()
        await idle.write(pb.SaveAgentStateStreamRequest(save=save_request(run_id="idle")))
        await idle.read()
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        port = server.target.partition(":")[2]
        async with saving(channel, 4) as savers:
            await advance(savers, 5)
            server.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await server.process.wait() == 0
            # Those who insist go on where it left them, and find all that they were told.
            again = await start(
                tmp_path, "--port", port, database_url=sqlite_url, stderr=None, **FOREVER
            )
            stack.push_async_callback(again.end, signal.SIGKILL)
            await advance(savers, 2)
    assert '"Stopped"' in server.log


async def test_who_saves_while_the_server_stops_is_told_to_come_again(
    tmp_path: Path, sqlite_url: str
) -> None:
    """Nobody is told CANCELLED, which no client repeats."""
    async with (
        cli_server(tmp_path, database_url=sqlite_url, **FOREVER) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
        saved = itertools.count(1)

        async def save_until_refused(run_id: str) -> grpc.aio.AioRpcError:
            for step in itertools.count():
                try:
                    await stub.SaveAgentState(save_request({"step": step}, run_id=run_id))
                except grpc.aio.AioRpcError as error:
                    return error
                if next(saved) == 320:
                    server.process.send_signal(signal.SIGTERM)
            raise AssertionError

        refusals = await asyncio.gather(*[save_until_refused(f"run-{i}") for i in range(32)])
        assert await server.process.wait() == 0
    assert {error.code() for error in refusals} == {grpc.StatusCode.UNAVAILABLE}


@pytest.mark.postgresql
async def test_a_second_signal_ends_a_drain_that_waits(tmp_path: Path, postgresql_url: str) -> None:
    engine = create_async_engine(postgresql_url)
    async with (
        cli_server(tmp_path, database_url=postgresql_url, **FOREVER) as server,
        grpc.aio.insecure_channel(server.target) as channel,
        engine.connect() as holding,
    ):
        stub: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
        await stub.SaveAgentState(save_request(run_id="held"))
        await holding.exec_driver_sql("select * from heads for update")
        held = stub.SaveAgentState(save_request({"step": 2}, run_id="held"))
        saving_held = asyncio.ensure_future(held)
        await server.logged("Optimized persistence failed")  # it waits on standard now
        server.process.send_signal(signal.SIGTERM)
        await server.logged("Stopping")
        assert await server.end() == 130
        with pytest.raises(grpc.aio.AioRpcError):
            await saving_held
    await engine.dispose()


async def save_under_way(server: CliServer, stack: AsyncExitStack) -> asyncio.Future[Any]:
    """Send a save to a server whose database hangs, and wait until that is known there."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.target))
    stub: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
    saving: asyncio.Future[Any] = asyncio.ensure_future(
        stub.SaveAgentState(save_request(run_id="hangs"))
    )
    await server.logged("not ready: TIMEOUT")
    return saving


@pytest.mark.postgresql
@pytest.mark.timeout(180)  # three servers start, and two wait for the whole of their bound
async def test_a_database_that_hangs_holds_no_process(tmp_path: Path) -> None:
    """It is thawed only when all have ended: no answer of it can be what they waited for."""
    with run_postgresql() as postgresql:
        async with postgresql.database() as url, AsyncExitStack() as stack:
            servers = []
            for name, drain_s, workers in (("twice", 3600, 1), ("once", 0, 1), ("workers", 0, 2)):
                (tmp_path / name).mkdir()
                settings = FOREVER | {"STATEKEEP_DRAIN_TIMEOUT": str(drain_s)}
                opening = cli_server(
                    tmp_path / name, "--workers", str(workers), database_url=url, **settings
                )
                servers.append(await stack.enter_async_context(opening))
            with postgresql.frozen():
                saves = [await save_under_way(server, stack) for server in servers]
                for server in servers:
                    server.process.send_signal(signal.SIGTERM)
                await servers[0].logged("Stopping")
                servers[0].process.send_signal(signal.SIGTERM)
                codes = [await server.process.wait() for server in servers]
                refused = await asyncio.gather(*saves, return_exceptions=True)
    assert codes == [130, 1, 1]
    assert all("Ended without closing everything" in server.log for server in servers)
    assert all(isinstance(error, grpc.aio.AioRpcError) for error in refused)
