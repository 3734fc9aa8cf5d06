"""Attempts: those that gRPC makes by itself, and those that an application makes."""

import asyncio
import threading
from datetime import timedelta
from uuid import UUID

import grpc
import pytest

from statekeep import (
    AsyncClient,
    CommitUnknown,
    DeadlineExceeded,
    Overloaded,
    Save,
    SaveResult,
    Unavailable,
    VersionConflict,
)
from tests.support.both_clients import Kind, connect
from tests.support.scripted_server import ScriptedServer, Step, fails, saved

UNAVAILABLE = fails(grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE", cause="LOCKED")
LOST = fails(grpc.StatusCode.UNAVAILABLE, "COMMIT_UNKNOWN", request_id="r")


async def test_a_save_is_the_same_message_in_all_attempts(
    client: AsyncClient, server: ScriptedServer
) -> None:
    server.will("SaveAgentState", UNAVAILABLE, UNAVAILABLE, UNAVAILABLE)
    result = await client.save("run-1", {"step": 1})
    assert [asked.previous_attempts for asked in server.asked] == [0, 1, 2, 3]
    first, *others = [asked.request for asked in server.asked]
    assert all(request == first for request in others)
    assert first.request_id == result.request_id
    assert UUID(first.request_id).version == 7


async def test_a_large_save_is_retried_too(client: AsyncClient, server: ScriptedServer) -> None:
    # gRPC gives up retries silently when a message does not fit its retry buffer.
    server.will("SaveAgentState", UNAVAILABLE)
    await client.save("run-1", b"\0" * 3_000_000)
    assert len(server.asked) == 2


async def test_the_fourth_failure_is_raised(client: AsyncClient, server: ScriptedServer) -> None:
    server.will("SaveAgentState", *[UNAVAILABLE] * 5)
    with pytest.raises(Unavailable) as caught:
        await client.save("run-1", {"step": 1})
    assert len(server.asked) == 4
    assert caught.value.request_id == server.asked[0].request.request_id
    assert caught.value.outcome_unknown


@pytest.mark.parametrize(
    "step",
    [
        fails(grpc.StatusCode.ABORTED, "VERSION_CONFLICT"),
        fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        fails(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        fails(grpc.StatusCode.INTERNAL, "INTERNAL"),
        fails(grpc.StatusCode.UNKNOWN),
    ],
)
async def test_nothing_but_unavailable_is_retried(
    server: ScriptedServer, step: Step, kind: Kind
) -> None:
    server.will("SaveAgentState", step)
    async with connect(kind, server.target) as client:
        with pytest.raises(Exception, match="it failed"):
            await client.save("run-1", {})
    assert len(server.asked) == 1


async def test_loads_and_lists_are_retried(client: AsyncClient, server: ScriptedServer) -> None:
    for method in ("LoadAgentState", "ListSnapshots", "GetServerInfo"):
        server.will(method, UNAVAILABLE)
    await client.load("run-1")
    assert [snapshot async for snapshot in client.list_snapshots("run-1")] == []
    await client.server_info()
    assert len(server.asked) == 6


async def test_changes_of_flags_are_not_retried(
    client: AsyncClient, server: ScriptedServer
) -> None:
    for method in ("SetFlag", "UnsetFlag"):
        server.will(method, UNAVAILABLE)
    with pytest.raises(Unavailable):
        await client.set_flag("OPTIMIZED_PERSISTENCE_ROLLOUT", "10%")
    with pytest.raises(Unavailable):
        await client.unset_flag("OPTIMIZED_PERSISTENCE_ROLLOUT")
    assert len(server.asked) == 2


async def test_an_application_repeats_a_save_by_its_error(
    client: AsyncClient, server: ScriptedServer
) -> None:
    server.will("SaveAgentState", *[LOST] * 4)
    day = timedelta(days=1)
    with pytest.raises(CommitUnknown) as caught:
        await client.save("run-1", {"step": 1}, expires_at=day)
    request_id = caught.value.request_id
    await client.save("run-1", {"step": 1}, expires_at=day, request_id=request_id, attempt=2)
    first, again = server.asked[0].request, server.asked[-1].request
    assert again.attempt == 2
    # All but the number of the attempt is the same, the moment of expiry too: else the server
    # would take it for another save under the same request id.
    again.attempt = first.attempt
    assert again == first


async def test_every_call_has_a_deadline(server: ScriptedServer, kind: Kind) -> None:
    server.will("SaveAgentState", lambda request, context: _wait_for_end(context))
    async with connect(kind, server.target) as client:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s") as caught:
            await client.save("run-1", {}, timeout_s=0.05)
    assert caught.value.request_id == server.asked[0].request.request_id
    assert caught.value.outcome_unknown


async def test_the_deadline_is_that_of_all_attempts(server: ScriptedServer, kind: Kind) -> None:
    remaining: list[float] = []

    def step(request: object, context: grpc.ServicerContext) -> object:
        remaining.append(context.time_remaining() or 0.0)
        return UNAVAILABLE(request, context) if len(remaining) < 3 else saved(request)

    server.will("SaveAgentState", step, step, step)
    async with connect(kind, server.target, timeout_s=5.0) as client:
        await client.save("run-1", {})
    assert remaining[0] > remaining[2]  # the second may be rounded up to the first


async def test_retry_after_reaches_the_caller(client: AsyncClient, server: ScriptedServer) -> None:
    step = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.25)
    server.will("SaveAgentState", step)
    with pytest.raises(Overloaded) as caught:
        await client.save("run-1", {})
    assert caught.value.retry_after_s == 0.25


async def test_a_retry_waits_as_long_as_the_server_asks(
    client: AsyncClient, server: ScriptedServer
) -> None:
    code = grpc.StatusCode.UNAVAILABLE
    # gRPC takes a pushback that it can read; one that says "never" ends the retries.
    never = fails(code, "STORAGE_UNAVAILABLE", retry_after_s=-0.001)
    server.will("SaveAgentState", fails(code, "OVERLOADED", retry_after_s=0.02), never)
    with pytest.raises(Unavailable):
        await client.save("run-1", {})
    assert len(server.asked) == 2


async def test_a_batch_is_repeated_with_the_same_saves(
    client: AsyncClient, server: ScriptedServer
) -> None:
    server.will("BatchSaveAgentStates", *[LOST] * 4)
    saves = [Save("run-1", {"step": 1}), Save("run-2", {"step": 2}, request_id="mine")]
    with pytest.raises(CommitUnknown):
        await client.save_many(saves)
    results = await client.save_many(saves, attempt=2)
    assert [result.request_id for result in results] == [saves[0].request_id, "mine"]
    first, again = server.asked[0].request, server.asked[-1].request
    assert [save.attempt for save in first.saves] == [1, 1]
    assert [save.attempt for save in again.saves] == [2, 2]
    assert [save.request_id for save in first.saves] == [save.request_id for save in again.saves]


async def test_a_cancelled_call_is_cancelled_at_the_server(server: ScriptedServer) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.call_soon_threadsafe(ended.set)

    def step(request: object, context: grpc.ServicerContext) -> object:
        context.add_callback(end)
        loop.call_soon_threadsafe(began.set)
        return _wait_for_end(context)

    server.will("SaveAgentState", step)
    async with AsyncClient(server.target) as client:
        task = asyncio.create_task(client.save("run-1", {}))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), timeout=10)
        assert (await client.save("run-1", {})).persisted  # the client lives on


async def test_one_cancelled_call_leaves_the_others_alone(server: ScriptedServer) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def step(request: object, context: grpc.ServicerContext) -> object:
        loop.call_soon_threadsafe(began.set)
        return _wait_for_end(context)

    server.will("SaveAgentState", step)
    async with AsyncClient(server.target) as client:
        doomed = asyncio.create_task(client.save("run-1", {}))
        await began.wait()
        other = asyncio.create_task(client.save("run-2", {}))
        doomed.cancel()
        assert isinstance(await other, SaveResult)


async def test_a_conflict_is_not_for_grpc_to_retry(
    client: AsyncClient, server: ScriptedServer
) -> None:
    step = fails(
        grpc.StatusCode.ABORTED, "VERSION_CONFLICT", expected_version="4", actual_version="5"
    )
    server.will("SaveAgentState", step)
    with pytest.raises(VersionConflict) as caught:
        await client.save("run-1", {}, expected_version=4)
    assert (caught.value.expected, caught.value.actual) == (4, 5)
    assert not caught.value.outcome_unknown


def _wait_for_end(context: grpc.ServicerContext) -> object:
    """Hold a call until its client has given it up."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(timeout=30)
    context.abort(grpc.StatusCode.CANCELLED, "the client has gone")
