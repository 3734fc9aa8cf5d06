"""Streams of saves over the wire: answers in order, failures alone, bounds, and the drain."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.config import Settings
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import Path
from statekeep_server.transport.save_stream import MAX_UNDER_WAY
from statekeep_server.transport.server import serve
from tests.support.wire import (
    Wire,
    connected,
    gate,
    new_run,
    open_faulty_wire,
    opened,
    refusal,
    save_request,
)
from tests.support.world import RUN, open_world

PERSISTED = agent_state_pb2.SAVE_OUTCOME_PERSISTED
SKIPPED = agent_state_pb2.SAVE_OUTCOME_SKIPPED
STREAM = "/statekeep.v1.AgentStateService/SaveAgentStateStream"


async def send(call: Any, *requests: pb.SaveAgentStateRequest) -> None:
    for request in requests:
        await call.write(pb.SaveAgentStateStreamRequest(save=request))


async def answers(call: Any, count: int) -> list[pb.SaveAgentStateStreamResponse]:
    return [await call.read() for _ in range(count)]


async def test_answers_come_in_the_order_of_the_saves(wire: Wire) -> None:
    runs = [new_run() for _ in range(7)]
    call = wire.state.SaveAgentStateStream()
    saves = [
        save_request({"step": step}, run_id=runs[step % 7], request_id=f"r-{step}")
        for step in range(200)
    ]
    sending = asyncio.create_task(send(call, *saves))
    answered = await answers(call, 200)
    await sending
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert [answer.saved.request_id for answer in answered] == [f"r-{n}" for n in range(200)]
    assert [answer.saved.version for answer in answered] == [n // 7 + 1 for n in range(200)]
    for index, run_id in enumerate(runs):
        loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id=run_id))
        last = max(step for step in range(200) if step % 7 == index)
        assert json.loads(loaded.state.data) == {"step": last}


async def test_b_then_a_again_is_never_skipped(wire: Wire, path: Path) -> None:
    run_id = new_run()
    call = wire.state.SaveAgentStateStream()
    await send(call, *(save_request({"at": name}, run_id=run_id) for name in "ABABBA"))
    outcomes = [answer.saved.outcome for answer in await answers(call, 6)]
    again = SKIPPED if path is Path.OPTIMIZED else PERSISTED
    assert outcomes == [PERSISTED, PERSISTED, PERSISTED, PERSISTED, again, PERSISTED]
    await call.done_writing()


async def test_saves_of_a_stream_share_commits() -> None:
    async with open_faulty_wire(Path.OPTIMIZED) as (wire, world):
        gated = gate(world)
        call = wire.state.SaveAgentStateStream()
        await send(call, *(save_request({"n": n}, run_id="run-1") for n in range(60)))
        await gated.arrived(1)
        while gated.calls.count("append_many") + world.detached.running < 60:
            await asyncio.sleep(0.001)  # until all have been read
        gated.gate.set()
        versions = [answer.saved.version for answer in await answers(call, 60)]
        assert versions == list(range(1, 61))
        assert gated.calls.count("append_many") < 5
        await call.done_writing()


async def test_a_broken_save_fails_alone(wire: Wire) -> None:
    run_id = new_run()
    call = wire.state.SaveAgentStateStream()
    await send(
        call,
        save_request({"a": 1}, run_id=run_id),
        save_request(b"{", run_id=run_id, request_id="broken"),
        save_request({"a": 2}, run_id=""),
        pb.SaveAgentStateRequest(run_id=run_id),
        save_request({"a": 3}, run_id=run_id, expected_version=9, request_id="late"),
        save_request({"a": 4}, run_id=run_id),
    )
    first, *failed, last = await answers(call, 6)
    assert (first.saved.version, last.saved.version) == (1, 2)
    assert [answer.error.reason for answer in failed] == [
        "STATE_NOT_JSON",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "VERSION_CONFLICT",
    ]
    assert failed[0].error.metadata["request_id"] == "broken"
    assert failed[3].error.metadata["request_id"] == "late"
    assert [answer.error.code for answer in failed] == [3, 3, 3, 10]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_message_that_is_none_ends_the_stream_after_the_answers(wire: Wire) -> None:
    call: Any = wire.channel.stream_stream(STREAM)()
    good = pb.SaveAgentStateStreamRequest(save=save_request(run_id=new_run()))
    await call.write(good.SerializeToString())
    await call.write(b"\xff\xff")
    answer = pb.SaveAgentStateStreamResponse.FromString(await call.read())
    assert answer.saved.outcome == PERSISTED
    refused = await refusal(call.read())
    assert (refused.code, refused.field) == (StatusCode.INVALID_ARGUMENT, "request")
    await wire.works()


async def test_a_token_and_a_tenant_count_for_streams_too() -> None:
    async with (
        open_world() as world,
        serve(
            world.facade,
            Settings(database_url="memory", port=0, token="t", trust_tenant_metadata=True),
            flags=world.follower,
        ) as running,
        connected(running.port) as wire,
    ):
        refused = await refusal(wire.state.SaveAgentStateStream().read())
        assert refused.reason == "UNAUTHENTICATED"
        call = wire.state.SaveAgentStateStream(
            metadata=[("authorization", "Bearer t"), ("statekeep-tenant", "other")]
        )
        await send(call, save_request())
        await answers(call, 1)
        await call.done_writing()
        assert [run.key.tenant for run in (await world.memory.list_runs("other", limit=9)).runs]
        assert not (await world.memory.list_runs("default", limit=9)).runs


# Bounds.


async def test_a_stream_has_so_many_saves_under_way_and_no_more() -> None:
    async with open_faulty_wire(Path.STANDARD) as (wire, world):
        gated = gate(world)
        call = wire.state.SaveAgentStateStream()
        saves = [save_request({"n": n}, run_id=f"run-{n}") for n in range(MAX_UNDER_WAY + 20)]
        sending = asyncio.create_task(send(call, *saves))
        await gated.arrived(MAX_UNDER_WAY)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert gated.waiting == MAX_UNDER_WAY
        gated.gate.set()
        assert len(await answers(call, len(saves))) == len(saves)
        await sending
        await call.done_writing()


async def test_each_save_of_a_stream_counts_as_one_under_way() -> None:
    async with open_faulty_wire(Path.STANDARD, max_concurrent_saves=8) as (wire, world):
        gated = gate(world)
        call = wire.state.SaveAgentStateStream()
        await send(call, *(save_request({"n": n}, run_id=f"run-{n}") for n in range(10)))
        await gated.arrived(7)
        # Only then the gate opens: a save that ends sooner makes room for another.
        async with asyncio.timeout(30):
            while world.facade.statistics().paths[0].failures.get("OVERLOADED") != 3:
                await asyncio.sleep(0.005)
        gated.gate.set()
        answered = await answers(call, 10)
        assert [answer.error.reason for answer in answered] == [""] * 7 + ["OVERLOADED"] * 3
        await send(call, save_request(run_id=new_run()))
        (after,) = await answers(call, 1)
        assert after.saved.outcome == PERSISTED
        await call.done_writing()


async def test_a_stream_may_last_longer_than_a_call() -> None:
    async with open_faulty_wire(Path.STANDARD, default_deadline_s=0.05) as (wire, _):
        call = wire.state.SaveAgentStateStream()
        await send(call, save_request(run_id=new_run()))
        await answers(call, 1)
        await asyncio.sleep(0.1)
        await send(call, save_request(run_id=new_run()))
        assert (await answers(call, 1))[0].saved.outcome == PERSISTED
        await call.done_writing()


async def test_a_client_that_goes_away_leaves_its_saves_and_nothing_else() -> None:
    async with open_faulty_wire(Path.STANDARD) as (wire, world):
        gated = gate(world)
        call = wire.state.SaveAgentStateStream()
        await send(call, *(save_request({"n": n}, run_id=f"run-{n}") for n in range(3)))
        await gated.arrived(3)
        call.cancel()
        gated.gate.set()
        while world.detached.running:
            await asyncio.sleep(0.001)
        assert len((await world.memory.list_runs("default", limit=9)).runs) == 3
        await wire.admin.GetStats(admin_pb.GetStatsRequest())
        await wire.works()


# Order, when something fails.


@pytest.mark.parametrize("broken", ["barrier", "append_many"])
async def test_a_fallback_keeps_its_place_in_the_run(broken: str) -> None:
    """A stands. B cannot go the optimized way; A after it must not be skipped against the first."""
    async with open_faulty_wire(Path.OPTIMIZED) as (wire, world):
        call = wire.state.SaveAgentStateStream()
        await send(call, save_request({"at": "A"}))
        await answers(call, 1)
        # Nothing is remembered, so the saves ask the barrier.
        await world.heads.invalidate(RUN)
        world.optimized.faults[broken] = [StorageUnavailable("POOL_TIMEOUT")]
        await send(call, *(save_request({"at": name}) for name in "BACA"))
        answered = [answer.saved for answer in await answers(call, 4)]
        assert [answer.version for answer in answered] == [2, 3, 4, 5]
        assert answered[0].HasField("fallback_cause")
        loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1"))
        assert json.loads(loaded.state.data) == {"at": "A"}
        await call.done_writing()


# The drain.


async def test_a_server_that_stops_answers_what_it_read_and_ends_the_stream() -> None:
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with open_world() as world:
        gated = gate(world)

        async def run() -> None:
            settings = Settings(database_url="memory", port=0, drain_timeout_s=60)
            async with serve(world.facade, settings, flags=world.follower) as running:
                port.set_result(running.port)
                await stop.wait()

        server = asyncio.create_task(run())
        async with connected(await port) as wire:
            idle, busy = wire.state.SaveAgentStateStream(), wire.state.SaveAgentStateStream()
            await asyncio.gather(idle.initial_metadata(), busy.initial_metadata())
            await send(busy, save_request())
            await gated.arrived(1)
            stop.set()
            ended = await refusal(idle.read())
            assert (ended.code, ended.reason) == (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert ended.retry_after_ms
            gated.gate.set()
            assert (await answers(busy, 1))[0].saved.version == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await busy.read()
            assert opened(caught.value).reason == "SHUTTING_DOWN"
            await server


async def test_a_stream_does_not_hold_the_drain_beyond_its_bound() -> None:
    async with open_world() as world:
        gated = gate(world)
        settings = Settings(database_url="memory", port=0, drain_timeout_s=0.05)
        serving = serve(world.facade, settings, flags=world.follower)
        running = await serving.__aenter__()
        async with connected(running.port) as wire:
            call = wire.state.SaveAgentStateStream()
            await send(call, save_request())
            await gated.arrived(1)
            async with asyncio.timeout(10):
                await serving.__aexit__(None, None, None)
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        gated.gate.set()
