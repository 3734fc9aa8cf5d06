"""States over the limit of a message: in chunks, both ways, bounded, one at a time."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from statekeep import AsyncClient, InvalidRequest, NotFound
from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.limits import MIB, Limits
from statekeep_server.domain.model import Path
from statekeep_server.transport import large_states
from tests.support.both_clients import KINDS, Kind, connect
from tests.support.wire import (
    Wire,
    gate,
    new_run,
    open_faulty_wire,
    open_wire,
    refusal,
    save_request,
)

SMALL_LIMITS = Limits(max_state_bytes=10, max_large_state_bytes=100)
PERSISTED = agent_state_pb2.SAVE_OUTCOME_PERSISTED


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database is enough here: a large state is one more row."""
    return sqlite_url


def header(**options: Any) -> pb.SaveLargeAgentStateRequest:
    request = save_request(b"", **options)
    return pb.SaveLargeAgentStateRequest(save=request)


def chunk(data: bytes) -> pb.SaveLargeAgentStateRequest:
    return pb.SaveLargeAgentStateRequest(chunk=data)


def large(wire: Wire, *parts: pb.SaveLargeAgentStateRequest) -> Any:
    async def requests() -> AsyncIterator[pb.SaveLargeAgentStateRequest]:
        for part in parts:
            yield part

    return wire.state.SaveLargeAgentState(requests())


async def load_large(wire: Wire, run_id: str) -> tuple[pb.LoadAgentStateResponse, bytes]:
    request = pb.LoadLargeAgentStateRequest(load=pb.LoadAgentStateRequest(run_id=run_id))
    head, *chunks = [part async for part in wire.state.LoadLargeAgentState(request)]
    assert all(len(part.chunk) <= MIB for part in chunks)
    return head.loaded, b"".join(part.chunk for part in chunks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [3_670_016, 3_670_017, 8_000_000])
async def test_the_client_sends_and_loads_large_states_by_itself(
    wire: Wire, kind: Kind, size: int
) -> None:
    run_id = new_run()
    state = {"text": "x" * (size - len('{"text":""}'))}
    async with connect(kind, f"127.0.0.1:{wire.port}") as client:
        saved = await client.save(run_id, state, checkpoint_type="AUTO", agent_phase="p")
        loaded = await client.load(run_id, version=saved.version)
        assert len(loaded.data) == size
        assert loaded.state == state
        assert loaded.snapshot.agent_phase == "p"
        assert saved.state_sha256 == hashlib.sha256(loaded.data).digest()
        again = await client.save(
            run_id,
            state,
            checkpoint_type="AUTO",
            agent_phase="p",
            request_id=saved.request_id,
            attempt=2,
        )
        assert again.replayed
        assert again.version == saved.version


async def test_a_large_state_is_skipped_like_any_other(sqlite_url: str) -> None:
    async with (
        open_wire(Path.OPTIMIZED, sqlite_url) as wire,
        AsyncClient(f"127.0.0.1:{wire.port}") as client,
    ):
        state = {"text": "x" * 5_000_000}
        first = await client.save("run-1", state, checkpoint_type="AUTO")
        second = await client.save("run-1", {**state, "updated_at": 1}, checkpoint_type="AUTO")
        assert second.skipped
        assert second.version == first.version


async def test_a_small_state_may_come_in_chunks_too(wire: Wire) -> None:
    run_id = new_run()
    parts = [header(run_id=run_id), chunk(b'{"a"'), chunk(b""), chunk(b": 1}")]
    saved = (await large(wire, *parts)).saved
    assert saved.outcome == PERSISTED
    unary = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run_id))
    loaded, data = await load_large(wire, run_id)
    assert data == unary.state.data == b'{"a": 1}'
    assert loaded.snapshot == unary.snapshot
    assert loaded.head_version == unary.head_version


async def test_loading_what_is_not_there() -> None:
    async with (
        open_faulty_wire(Path.STANDARD) as (wire, _),
        AsyncClient(f"127.0.0.1:{wire.port}") as client,
    ):
        request = pb.LoadLargeAgentStateRequest(load=pb.LoadAgentStateRequest(run_id="nobody"))
        refused = await refusal(wire.state.LoadLargeAgentState(request).read())
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        with pytest.raises(NotFound):
            await client.load("nobody")


@pytest.mark.parametrize(
    ("parts", "reason", "field"),
    [
        ([], "INVALID_FIELD", "save"),
        ([chunk(b"1")], "INVALID_FIELD", "save"),
        ([header(), header()], "INVALID_FIELD", "chunk"),
        ([header(), pb.SaveLargeAgentStateRequest()], "INVALID_FIELD", "chunk"),
        ([header(), chunk(b"x" * (MIB + 1))], "INVALID_FIELD", "chunk"),
        (
            [pb.SaveLargeAgentStateRequest(save=save_request({"a": 1}))],
            "INVALID_FIELD",
            "save.state.data",
        ),
        ([header(run_id=""), chunk(b"1")], "INVALID_FIELD", "run_id"),
        ([header(), chunk(b"{")], "STATE_NOT_JSON", "state.data"),
        ([header(), chunk(b"1" * 60), chunk(b"1" * 41)], "STATE_TOO_LARGE", "state.data"),
    ],
)
async def test_bad_parts_are_refused(
    parts: list[pb.SaveLargeAgentStateRequest], reason: str, field: str
) -> None:
    async with open_faulty_wire(Path.OPTIMIZED, limits=SMALL_LIMITS) as (wire, world):
        refused = await refusal(large(wire, *parts))
        assert (refused.code, refused.reason, refused.field) == (
            StatusCode.INVALID_ARGUMENT,
            reason,
            field,
        )
        assert not (await world.memory.list_runs("default", limit=9)).runs


async def test_each_way_has_its_limit() -> None:
    async with open_faulty_wire(Path.OPTIMIZED, limits=SMALL_LIMITS) as (wire, _):
        state = b"1" * 11
        over = await refusal(wire.state.SaveAgentState(save_request(state, run_id="run-2")))
        assert (over.reason, over.metadata["limit"]) == ("STATE_TOO_LARGE", "10")
        await large(wire, header(), chunk(state))
        unary = await refusal(wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1")))
        assert (unary.reason, unary.metadata["size"]) == ("STATE_TOO_LARGE", "11")
        assert (await load_large(wire, "run-1"))[1] == state


async def test_the_client_knows_other_refusals(wire: Wire) -> None:
    async with AsyncClient(f"127.0.0.1:{wire.port}") as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.save("", "x" * 4_000_000, request_id="mine")
        assert (caught.value.field, caught.value.request_id) == ("run_id", "mine")
        with pytest.raises(InvalidRequest) as caught:
            await client.load("")
        assert caught.value.field == "run_id"
        with pytest.raises(InvalidRequest) as caught:
            await client.save("run-1", b"x" * (64 * MIB + 1), timeout_s=60)
        assert caught.value.reason == "STATE_TOO_LARGE"


async def test_one_large_state_is_saved_at_a_time_and_small_ones_beside_it() -> None:
    async with open_faulty_wire(Path.STANDARD) as (wire, world):
        gated = gate(world)
        first = large(wire, header(run_id="run-1"), chunk(b"1"))
        second = large(wire, header(run_id="run-2"), chunk(b"2"))
        small = wire.state.SaveAgentState(save_request(run_id="run-3"))
        await gated.arrived(2)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert gated.waiting == 2
        gated.gate.set()
        assert [(await call).saved.version for call in (first, second)] == [1, 1]
        assert (await small).version == 1


async def test_waiting_for_another_large_state_ends_with_the_deadline() -> None:
    async with open_faulty_wire(Path.STANDARD, default_deadline_s=0.2) as (wire, world):
        gated = gate(world)
        first: Any = wire.state.SaveLargeAgentState(
            iter([header(run_id="run-1"), chunk(b"1")]), timeout=30
        )
        await gated.arrived(1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await large(wire, header(run_id="run-2"), chunk(b"2"))
        assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
        gated.gate.set()
        assert (await first).saved.version == 1


async def read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_client_that_reads_no_further_makes_room_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large_states, "MAX_SEND_S", 0.5)
    state = b'"' + b"x" * (30 * MIB) + b'"'  # more than the buffers on the way hold
    async with open_faulty_wire(Path.STANDARD) as (wire, _):
        chunks = [chunk(state[start : start + MIB]) for start in range(0, len(state), MIB)]
        await large(wire, header(run_id="run-1"), *chunks)
        request = pb.LoadLargeAgentStateRequest(load=pb.LoadAgentStateRequest(run_id="run-1"))
        idle: Any = wire.state.LoadLargeAgentState(request)
        await idle.read()
        assert len((await load_large(wire, "run-1"))[1]) == len(state)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_on(idle)
        assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_goes_away_in_the_middle_makes_room() -> None:
    async with open_faulty_wire(Path.STANDARD) as (wire, _):
        call: Any = wire.state.SaveLargeAgentState()
        await call.write(header(run_id="run-1"))
        call.cancel()
        assert (await large(wire, header(run_id="run-2"), chunk(b"2"))).saved.version == 1
