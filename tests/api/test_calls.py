"""What happens to a call around its servicer: token, tenant, limit, deadline, cancellation."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import Path
from tests.support.wire import (
    SAVE,
    Wire,
    gate,
    new_run,
    open_faulty_wire,
    open_wire,
    refusal,
    save_request,
)

TOKEN = "right-token-7f3a"
RIGHT = [("authorization", f"Bearer {TOKEN}")]
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

LOAD = pb.LoadAgentStateRequest


async def reflect(wire: Wire, **options: Any) -> Any:
    """Ask reflection something."""
    call: Any = wire.channel.stream_stream(REFLECTION)(**options)
    await call.write(b"")
    return await call.read()


def every_call(wire: Wire, **options: Any) -> list[Callable[[], Awaitable[Any]]]:
    """List a call of every method of both services, and reflection, in an order that works."""
    save = save_request()
    state, admin = wire.state, wire.admin
    batch = pb.BatchSaveAgentStatesRequest(saves=[save])
    return [
        lambda: state.SaveAgentState(save, **options),
        lambda: state.LoadAgentState(LOAD(run_id="run-1"), **options),
        lambda: state.BatchSaveAgentStates(batch, **options),
        lambda: state.ListSnapshots(pb.ListSnapshotsRequest(run_id="run-1"), **options),
        lambda: state.ListRuns(pb.ListRunsRequest(), **options),
        lambda: state.DeleteRun(pb.DeleteRunRequest(run_id="run-1"), **options),
        lambda: admin.GetServerInfo(admin_pb.GetServerInfoRequest(), **options),
        lambda: admin.GetStats(admin_pb.GetStatsRequest(), **options),
        lambda: reflect(wire, **options),
    ]


# The token.


async def test_without_the_token_nothing_is_answered_but_health(
    path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_wire(path, database_url, token=TOKEN) as wire:
        wrong = [
            [],
            [("authorization", "Bearer wrong-token")],
            [("authorization", TOKEN)],
            [*RIGHT, *RIGHT],
        ]
        for metadata in wrong:
            for call in every_call(wire, metadata=metadata):
                refused = await refusal(call())
                assert (refused.code, refused.reason) == (
                    StatusCode.UNAUTHENTICATED,
                    "UNAUTHENTICATED",
                )
        for call in every_call(wire, metadata=RIGHT):
            await call()
        await assert_serving(wire)
    assert TOKEN not in caplog.text
    assert "wrong-token" not in caplog.text


async def test_a_call_without_the_token_is_refused_before_its_message_is_read() -> None:
    async with open_faulty_wire(Path.STANDARD, token=TOKEN) as (wire, _):
        # Beyond the limit on messages: read, it would be RESOURCE_EXHAUSTED.
        refused = await refusal(wire.raw(SAVE)(b"x" * 17 * 1024 * 1024))
        assert refused.code is StatusCode.UNAUTHENTICATED
        refused = await refusal(wire.raw(SAVE)(b"\xff"))
        assert refused.code is StatusCode.UNAUTHENTICATED


# The tenant.


async def test_tenants_do_not_see_each_other(path: Path, database_url: str) -> None:
    async with open_wire(path, database_url, trust_tenant_metadata=True) as wire:
        a, b = [("statekeep-tenant", "a")], [("statekeep-tenant", "b")]
        saved = await wire.state.SaveAgentState(save_request({"of": "a"}), metadata=a)
        other = await wire.state.SaveAgentState(save_request({"of": "b"}), metadata=b)
        assert (saved.version, other.version) == (1, 1)
        for metadata, owner in ((a, "a"), (b, "b")):
            loaded = await wire.state.LoadAgentState(LOAD(run_id="run-1"), metadata=metadata)
            assert json.loads(loaded.state.data) == {"of": owner}
        stolen = LOAD(run_id="run-1", snapshot_id=saved.snapshot_id)
        refused = await refusal(wire.state.LoadAgentState(stolen, metadata=b))
        assert refused.reason == "SNAPSHOT_NOT_FOUND"
        page = await wire.state.ListRuns(pb.ListRunsRequest(page_size=1), metadata=a)
        assert [run.run_id for run in page.runs] == ["run-1"]
        assert not (await wire.state.ListRuns(pb.ListRunsRequest())).runs
        bad = [("statekeep-tenant", "x" * 65)]
        refused = await refusal(wire.state.ListRuns(pb.ListRunsRequest(), metadata=bad))
        assert refused.field == "statekeep-tenant"


async def test_a_tenant_in_metadata_means_nothing_by_default(wire: Wire) -> None:
    metadata = [("statekeep-tenant", "other")]
    await wire.state.SaveAgentState(save_request(), metadata=metadata)
    assert (await wire.state.LoadAgentState(LOAD(run_id="run-1"))).head_version == 1


# The order of the steps, by what they do.


async def test_load_is_refused_first_then_the_token_then_the_tenant_then_the_message() -> None:
    settings = {"token": TOKEN, "trust_tenant_metadata": True, "max_concurrent_saves": 1}
    bad_tenant = [("statekeep-tenant", "x" * 65)]
    async with open_faulty_wire(Path.STANDARD, **settings) as (wire, world):
        gated = gate(world)
        full = [wire.state.LoadAgentState(LOAD(run_id="r"), metadata=RIGHT) for _ in range(2)]
        await gated.arrived(2)
        assert (await refusal(wire.raw(SAVE)(b"\xff"))).reason == "OVERLOADED"
        gated.gate.set()
        for call in full:
            await refusal(call)
        malformed = wire.raw(SAVE)
        assert (await refusal(malformed(b"\xff", metadata=bad_tenant))).reason == "UNAUTHENTICATED"
        refused = await refusal(malformed(b"\xff", metadata=[*RIGHT, *bad_tenant]))
        assert refused.field == "statekeep-tenant"
        assert (await refusal(malformed(b"\xff", metadata=RIGHT))).field == "request"


# The limit.


@pytest.mark.parametrize("end", ["answered", "cancelled"])
async def test_beyond_the_limit_calls_are_refused_and_afterwards_taken_again(end: str) -> None:
    limit = 8
    async with open_faulty_wire(Path.STANDARD, max_concurrent_saves=limit // 2) as (wire, world):
        await wire.state.SaveAgentState(save_request())
        for _ in range(3):
            gated = gate(world)
            calls = [wire.state.LoadAgentState(LOAD(run_id="run-1")) for _ in range(limit)]
            await gated.arrived(limit)
            more = [wire.state.LoadAgentState(LOAD(run_id="run-1")) for _ in range(2 * limit)]
            for call in more:
                refused = await refusal(call)
                assert (refused.code, refused.reason) == (
                    StatusCode.RESOURCE_EXHAUSTED,
                    "OVERLOADED",
                )
                assert refused.metadata["limit"] == str(limit)
                assert refused.pushback_ms
            await assert_serving(wire)  # health is answered under any load
            if end == "cancelled":
                for call in calls:
                    call.cancel()
                while gated.waiting:
                    await asyncio.sleep(0.001)
            gated.gate.set()
            if end == "answered":
                assert {(await call).head_version for call in calls} == {1}
            await until_free(wire)


async def test_a_flood_leaves_the_server_free(wire: Wire) -> None:
    calls = [
        wire.state.SaveAgentState(save_request({"n": n}, run_id=f"run-{n % 7}")) for n in range(500)
    ]
    answers = await asyncio.gather(*calls)
    assert len({(answer.snapshot_id, answer.version) for answer in answers}) == 500
    await wire.works()


# Deadlines and cancellation.


async def test_a_call_without_a_deadline_gets_one(path: Path) -> None:
    async with open_faulty_wire(path, default_deadline_s=0.05) as (wire, world):
        gated = gate(world)
        for call in (
            wire.state.SaveAgentState(save_request(run_id="run-1")),
            wire.state.LoadAgentState(LOAD(run_id="run-1")),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (
                StatusCode.DEADLINE_EXCEEDED,
                "DEADLINE_EXCEEDED",
            )
        gated.gate.set()
        await wire.works()


@pytest.mark.parametrize("end", ["cancelled", "deadline"])
async def test_a_caller_that_goes_away_does_not_stop_its_save(
    path: Path, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_faulty_wire(path) as (wire, world):
        gated = gate(world)
        request = save_request({"a": 1}, request_id="r-1")
        call = wire.state.SaveAgentState(request, timeout=0.2 if end == "deadline" else None)
        await gated.arrived(1)
        if end == "cancelled":
            assert call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
                await call
        gated.gate.set()
        request.attempt = 2
        again = await wire.state.SaveAgentState(request)
        assert again.replayed
        assert again.version == 1
        page = await wire.state.ListSnapshots(pb.ListSnapshotsRequest(run_id="run-1"))
        assert len(page.snapshots) == 1
        await wire.works()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Attempts.


async def test_a_repetition_by_grpc_itself_is_a_later_attempt() -> None:
    async with open_faulty_wire(Path.STANDARD) as (wire, world):
        gated = gate(world)
        gated.gate.set()
        gated.faults["append_many"] = [StorageUnavailable("UNREACHABLE")]
        retries = {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.01s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
        options = [("grpc.service_config", json.dumps({"methodConfig": [retries]}))]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{wire.port}", options) as channel:
            await Wire(wire.port, channel).state.SaveAgentState(save_request(request_id="r-1"))
        attempts = [(command.request_id, command.attempt) for command in gated.commands]
        assert attempts == [("r-1", 1), ("r-1", 2)]


# Batches.


async def test_a_large_batch_of_large_states_goes_through(wire: Wire) -> None:
    data = b'"' + b"x" * 1_000_000 + b'"'
    saves = [save_request(data, run_id=new_run()) for _ in range(15)]
    answer = await wire.state.BatchSaveAgentStates(pb.BatchSaveAgentStatesRequest(saves=saves))
    assert {result.saved.version for result in answer.results} == {1}
    for save in saves[::7]:
        assert (await wire.state.LoadAgentState(LOAD(run_id=save.run_id))).state.data == data


async def assert_serving(wire: Wire) -> None:
    assert (await wire.health.Check(health_pb2.HealthCheckRequest())).status == 1


async def until_free(wire: Wire) -> None:
    """Wait until nothing is under way: as many calls as may be at once, all answered."""
    for _ in range(1_000):
        calls = [wire.state.ListRuns(pb.ListRunsRequest()) for _ in range(8)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if not any(isinstance(answer, BaseException) for answer in answers):
            return
    raise AssertionError("the server stays full")
