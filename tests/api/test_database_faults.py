"""A database that is locked, down, read-only or too new, as callers see it; then it works again."""

import asyncio
import sqlite3
from collections.abc import Iterator

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.errors import SchemaMismatch
from statekeep_server.domain.model import Path
from statekeep_server.storage.schema import VERSION_TABLE
from tests.support.postgres import Postgresql, run_postgresql
from tests.support.wire import Wire, new_run, open_wire, refusal, save_request

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Postgresql]:
    """A server that these tests may stop."""
    with run_postgresql() as server:
        yield server


async def save_is_refused_for(wire: Wire, *causes: str) -> None:
    for save in (
        save_request(run_id=new_run()),
        save_request(run_id=new_run(), expected_version=0),
    ):
        refused = await refusal(wire.state.SaveAgentState(save))
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert refused.metadata["cause"] in causes
        assert refused.pushback_ms
        assert "postgres" not in refused.message  # nor anything else that a driver says


async def works_again(wire: Wire) -> None:
    """Wait until health says so, then save: pools may find their broken connections one by one."""
    watch = wire.health.Watch(health_pb2.HealthCheckRequest())
    while (await watch.read()).status != SERVING:
        pass
    watch.cancel()
    await wire.works()


async def test_a_locked_database_is_unavailable_until_it_is_released(
    path: Path, sqlite_url: str
) -> None:
    async with open_wire(path, sqlite_url, lock_timeout_s=0.05) as wire:
        saved = await wire.state.SaveAgentState(save_request(run_id="run-l"))
        other = sqlite3.connect(sqlite_url.partition("///")[2], isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            await save_is_refused_for(wire, "LOCKED")
            loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-l"))
            assert loaded.snapshot.snapshot_id == saved.snapshot_id
            other.execute("ROLLBACK")
        finally:
            other.close()
        await works_again(wire)


async def test_a_server_does_not_start_on_a_database_that_is_too_new(
    path: Path, sqlite_url: str
) -> None:
    async with open_wire(path, sqlite_url) as wire:
        await wire.works()
    with sqlite3.connect(sqlite_url.partition("///")[2]) as other:
        other.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    other.close()
    with pytest.raises(SchemaMismatch, match="upgrade statekeep"):
        await open_wire(path, sqlite_url).__aenter__()


@pytest.mark.postgresql
async def test_a_database_that_is_down_is_unavailable_until_it_is_back(
    path: Path, own_postgresql: Postgresql
) -> None:
    async with own_postgresql.database() as url, open_wire(path, url) as wire:
        saved = await wire.state.SaveAgentState(save_request(run_id="run-d"))
        own_postgresql.stop()
        try:
            await save_is_refused_for(wire, "UNREACHABLE", "OTHER")
            load = pb.LoadAgentStateRequest(run_id="run-d")
            refused = await refusal(wire.state.LoadAgentState(load))
            assert (refused.code, refused.reason) == (
                StatusCode.UNAVAILABLE,
                "STORAGE_UNAVAILABLE",
            )
            await until(wire, NOT_SERVING)
        finally:
            own_postgresql.start()
        await works_again(wire)
        loaded = await wire.state.LoadAgentState(load)
        assert loaded.snapshot.snapshot_id == saved.snapshot_id


@pytest.mark.postgresql
async def test_a_database_that_cannot_be_written_still_answers_loads(
    path: Path, own_postgresql: Postgresql
) -> None:
    async with own_postgresql.database() as url, open_wire(path, url) as wire:
        saved = await wire.state.SaveAgentState(save_request(run_id="run-r"))
        await read_only(own_postgresql, "on")
        try:
            await save_is_refused_for(wire, "READ_ONLY")
            loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-r"))
            assert loaded.snapshot.snapshot_id == saved.snapshot_id
            await until(wire, NOT_SERVING)
        finally:
            await read_only(own_postgresql, "off")
        await works_again(wire)


async def read_only(server: Postgresql, value: str) -> None:
    await server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await server.execute("SELECT pg_reload_conf()")
    while (await server.execute("SHOW default_transaction_read_only"))[0][0] != value:
        await asyncio.sleep(0.01)


async def until(wire: Wire, status: int) -> None:
    watch = wire.health.Watch(health_pb2.HealthCheckRequest())
    while (await watch.read()).status != status:
        pass
    watch.cancel()
