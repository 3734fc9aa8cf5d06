"""Every reason of the contract comes over a real channel, with its status and its facts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpc import StatusCode

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.config import Settings
from statekeep_server.domain.errors import SchemaMismatch, StateCorrupt, StorageUnavailable
from statekeep_server.domain.model import Path
from statekeep_server.telemetry import names
from statekeep_server.transport.server import serve
from statekeep_server.transport.words import ERROR_REASONS
from tests.support.wire import (
    Refusal,
    Wire,
    connected,
    gate,
    new_run,
    open_faulty_wire,
    refusal,
    save_request,
)
from tests.support.world import World, points

Provoke = Callable[[Wire, World], Awaitable[Refusal]]


def state(data: bytes) -> Provoke:
    async def provoke(wire: Wire, world: World) -> Refusal:
        return await save(wire, data)

    return provoke


def save(wire: Wire, data: object = None, **options: Any) -> Awaitable[Refusal]:
    return refusal(wire.state.SaveAgentState(save_request(data, **options)))


def break_both(world: World, method: str, error: Exception) -> None:
    world.standard.always[method] = world.optimized.always[method] = error


async def invalid_field(wire: Wire, world: World) -> Refusal:
    return await save(wire, run_id="")


async def request_id_reused(wire: Wire, world: World) -> Refusal:
    await wire.state.SaveAgentState(save_request({"a": 1}, request_id="r-1"))
    return await save(wire, {"a": 2}, request_id="r-1")


async def version_conflict(wire: Wire, world: World) -> Refusal:
    return await save(wire, expected_version=4)


async def stale_writer(wire: Wire, world: World) -> Refusal:
    await wire.state.SaveAgentState(save_request({"a": 1}, writer_sequence=2))
    return await save(wire, {"a": 2}, writer_sequence=1)


async def run_not_found(wire: Wire, world: World) -> Refusal:
    return await refusal(wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-0")))


async def snapshot_not_found(wire: Wire, world: World) -> Refusal:
    request = pb.LoadAgentStateRequest(run_id="run-0", version=4)
    return await refusal(wire.state.LoadAgentState(request))


async def state_corrupt(wire: Wire, world: World) -> Refusal:
    for load in ("load", "load_newest"):
        break_both(world, load, StateCorrupt("run-1", "s-1"))
    return await refusal(wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1")))


async def overloaded(wire: Wire, world: World) -> Refusal:
    gated = gate(world)
    calls = [wire.state.SaveAgentState(save_request({"n": n}, run_id=new_run())) for n in range(4)]
    while points(world, names.SAVES_UNDER_WAY) != {(): len(calls)}:
        await asyncio.sleep(0.001)
    refused = await save(wire)
    gated.gate.set()
    for call in calls:
        await call
    return refused


async def storage_unavailable(wire: Wire, world: World) -> Refusal:
    break_both(world, "append_many", StorageUnavailable("READ_ONLY"))
    break_both(world, "barrier", StorageUnavailable("READ_ONLY"))
    return await save(wire)


async def commit_unknown(wire: Wire, world: World) -> Refusal:
    world.standard.lose_commits = world.optimized.lose_commits = 1
    return await save(wire, request_id="r-1")


async def deadline_exceeded(wire: Wire, world: World) -> Refusal:
    gated = gate(world)
    refused = await save(wire)
    gated.gate.set()
    return refused


async def shutting_down(wire: Wire, world: World) -> Refusal:
    serving = serve(world.facade, Settings(database_url="memory", port=0), flags=world.follower)
    running = await serving.__aenter__()
    async with connected(running.port) as other:
        call = other.state.SaveAgentStateStream()
        await call.initial_metadata()
        stopping = asyncio.create_task(serving.__aexit__(None, None, None))
        refused = await refusal(call.read())
        await stopping
    return refused


async def unauthenticated(wire: Wire, world: World) -> Refusal:
    return await refusal(
        wire.state.SaveAgentState(save_request(), metadata=[("authorization", "Bearer wrong")])
    )


async def schema_mismatch(wire: Wire, world: World) -> Refusal:
    break_both(world, "append_many", SchemaMismatch("0009", "0001"))
    break_both(world, "barrier", SchemaMismatch("0009", "0001"))
    return await save(wire)


async def internal(wire: Wire, world: World) -> Refusal:
    for load in ("load", "load_newest"):
        break_both(world, load, RuntimeError("secret"))
    return await refusal(wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1")))


async def flag_conflict(wire: Wire, world: World) -> Refusal:
    return await refusal(
        wire.admin.SetFlag(
            admin_pb.SetFlagRequest(name="LOG_LEVEL", value="DEBUG", expected_version=7)
        )
    )


SETTINGS: dict[str, dict[str, Any]] = {
    "OVERLOADED": {"max_concurrent_saves": 4},
    "DEADLINE_EXCEEDED": {"default_deadline_s": 0.05},
    "UNAUTHENTICATED": {"token": "right"},
}
EXPECTED: dict[str, tuple[Provoke, StatusCode, set[str]]] = {
    "INVALID_FIELD": (invalid_field, StatusCode.INVALID_ARGUMENT, {"field", "limit"}),
    "STATE_TOO_LARGE": (
        state(b"x" * 3_670_017),
        StatusCode.INVALID_ARGUMENT,
        {"field", "size", "limit"},
    ),
    "STATE_NOT_JSON": (state(b"NaN"), StatusCode.INVALID_ARGUMENT, {"field", "problem"}),
    "STATE_DUPLICATE_KEY": (
        state(b'{"a":1,"a":1}'),
        StatusCode.INVALID_ARGUMENT,
        {"field", "key"},
    ),
    "STATE_TOO_DEEP": (state(b"[" * 200), StatusCode.INVALID_ARGUMENT, {"field", "limit"}),
    "STATE_INTEGER_TOO_LONG": (
        state(b"1" * 5_000),
        StatusCode.INVALID_ARGUMENT,
        {"field", "limit"},
    ),
    "STATE_TOO_MANY_MEMBERS": (
        state(b"[" + b",".join([b'{"":0}'] * 100_001) + b"]"),
        StatusCode.INVALID_ARGUMENT,
        {"field", "limit"},
    ),
    "REQUEST_ID_REUSED": (
        request_id_reused,
        StatusCode.ALREADY_EXISTS,
        {"field", "request_id"},
    ),
    "VERSION_CONFLICT": (
        version_conflict,
        StatusCode.ABORTED,
        {"expected_version", "actual_version"},
    ),
    "STALE_WRITER": (
        stale_writer,
        StatusCode.ABORTED,
        {"writer_sequence", "actual_writer_sequence"},
    ),
    "FLAG_CONFLICT": (
        flag_conflict,
        StatusCode.ABORTED,
        {"name", "expected_version", "actual_version"},
    ),
    "RUN_NOT_FOUND": (run_not_found, StatusCode.NOT_FOUND, {"run_id"}),
    "SNAPSHOT_NOT_FOUND": (snapshot_not_found, StatusCode.NOT_FOUND, {"run_id", "version"}),
    "STATE_CORRUPT": (state_corrupt, StatusCode.DATA_LOSS, {"run_id", "snapshot_id"}),
    "OVERLOADED": (overloaded, StatusCode.RESOURCE_EXHAUSTED, {"limit"}),
    "SHUTTING_DOWN": (shutting_down, StatusCode.UNAVAILABLE, set()),
    "STORAGE_UNAVAILABLE": (storage_unavailable, StatusCode.UNAVAILABLE, {"cause"}),
    "COMMIT_UNKNOWN": (commit_unknown, StatusCode.UNAVAILABLE, {"request_id"}),
    "DEADLINE_EXCEEDED": (deadline_exceeded, StatusCode.DEADLINE_EXCEEDED, set()),
    "UNAUTHENTICATED": (unauthenticated, StatusCode.UNAUTHENTICATED, set()),
    "SCHEMA_MISMATCH": (schema_mismatch, StatusCode.FAILED_PRECONDITION, {"found", "expected"}),
    "INTERNAL": (internal, StatusCode.INTERNAL, {"trace_id"}),
}


def test_the_table_has_every_reason() -> None:
    assert EXPECTED.keys() == ERROR_REASONS


@pytest.mark.parametrize("reason", sorted(EXPECTED))
async def test_a_reason_comes_over_the_wire(path: Path, reason: str) -> None:
    provoke, code, facts = EXPECTED[reason]
    async with open_faulty_wire(path, **SETTINGS.get(reason, {})) as (wire, world):
        refused = await provoke(wire, world)
        assert (refused.code, refused.reason) == (code, reason)
        assert facts <= refused.metadata.keys()
        # Only a bad field is one, and only what may work later says when.
        assert (refused.field is None) == (code is not StatusCode.INVALID_ARGUMENT)
        may_work_later = code in {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED}
        assert (refused.retry_after_ms is not None) == may_work_later
        assert refused.retry_after_ms == refused.pushback_ms


@pytest.mark.parametrize("cause", ["UNREACHABLE", "LOCKED", "READ_ONLY", "FULL", "TIMEOUT"])
async def test_a_database_that_fails_is_unavailable_until_it_works_again(
    path: Path, cause: str
) -> None:
    async with open_faulty_wire(path) as (wire, world):
        for method in (
            "append_many",
            "barrier",
            "load",
            "load_newest",
            "list_runs",
            "list_snapshots",
        ):
            break_both(world, method, StorageUnavailable(cause))
        calls: list[Awaitable[Any]] = [
            wire.state.SaveAgentState(save_request()),
            wire.state.BatchSaveAgentStates(
                pb.BatchSaveAgentStatesRequest(saves=[save_request()], atomic=True)
            ),
            wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1")),
            wire.state.ListRuns(pb.ListRunsRequest()),
            wire.state.ListSnapshots(pb.ListSnapshotsRequest(run_id="run-1")),
        ]
        for call in calls:
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (
                StatusCode.UNAVAILABLE,
                "STORAGE_UNAVAILABLE",
            )
            assert refused.metadata["cause"] == cause
            assert refused.pushback_ms
        world.standard.always.clear()
        world.optimized.always.clear()
        await wire.works()


async def test_when_both_paths_fail_both_causes_are_said() -> None:
    async with open_faulty_wire(Path.OPTIMIZED) as (wire, world):
        world.optimized.always["barrier"] = StorageUnavailable("POOL_TIMEOUT")
        world.standard.always["append_many"] = StorageUnavailable("UNREACHABLE")
        refused = await save(wire)
        assert refused.metadata["optimized_cause"] == "STORAGE_UNAVAILABLE"
        assert refused.metadata["standard_cause"] == "STORAGE_UNAVAILABLE"
        assert "optimized path" in refused.message
        assert "standard path" in refused.message
        world.standard.always.clear()
        answer = await wire.state.SaveAgentState(save_request())
        assert answer.fallback_cause.reason == "STORAGE_UNAVAILABLE"


async def test_an_unknown_commit_names_the_save_also_when_the_caller_did_not(path: Path) -> None:
    async with open_faulty_wire(path) as (wire, world):
        world.standard.lose_commits = world.optimized.lose_commits = 1
        refused = await save(wire, {"a": 1})
        assert refused.reason == "COMMIT_UNKNOWN"
        again = await wire.state.SaveAgentState(
            save_request({"a": 1}, request_id=refused.metadata["request_id"], attempt=2)
        )
        assert again.replayed
        assert again.version == 1


async def test_nothing_of_a_bug_is_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_faulty_wire(path) as (wire, world):
        for method in ("append_many", "barrier", "load", "load_newest", "list_runs", "delete_run"):
            break_both(world, method, RuntimeError("secret"))
        calls: list[Awaitable[Any]] = [
            wire.state.SaveAgentState(save_request()),
            wire.state.BatchSaveAgentStates(
                pb.BatchSaveAgentStatesRequest(saves=[save_request()], atomic=True)
            ),
            wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1")),
            wire.state.ListRuns(pb.ListRunsRequest()),
            wire.state.DeleteRun(pb.DeleteRunRequest(run_id="run-1")),
        ]
        for call in calls:
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (StatusCode.INTERNAL, "INTERNAL")
            assert "secret" not in repr(refused)
        answer = await wire.state.BatchSaveAgentStates(
            pb.BatchSaveAgentStatesRequest(saves=[save_request()])
        )
        assert (answer.results[0].error.code, answer.results[0].error.reason) == (13, "INTERNAL")
        assert "secret" not in str(answer)
        ours = [record for record in caplog.records if record.name.startswith("statekeep.transp")]
        assert ours
        assert not any("secret" in record.getMessage() or record.exc_info for record in ours)
        world.standard.always.clear()
        world.optimized.always.clear()
        await wire.works()
