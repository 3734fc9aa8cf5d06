"""What each method sends and what it makes of the answer, the same for both clients."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from statekeep import (
    AsyncClient,
    CheckpointType,
    DataLoss,
    DecisionReason,
    FallbackCause,
    Internal,
    InvalidRequest,
    NotFound,
    Save,
    SaveOutcome,
    SaveResult,
    ServingPath,
    VersionConflict,
)
from statekeep._ids import made_at
from statekeep.v1 import agent_state_pb2, agent_state_service_pb2
from tests.support.scripted_server import ScriptedServer, answers, fails, in_parts, loaded, saved


async def test_save_sends_every_option(client: AsyncClient, server: ScriptedServer) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    await client.save(
        "run-1",
        {"step": 1},
        checkpoint_type="AUTO",
        thread_id="thread-1",
        user_id="user-1",
        agent_phase="planning",
        execution_context={"host": "a"},
        is_recovery_point=True,
        expires_at=moment,
        request_id="mine",
        attempt=3,
        expected_version=0,
        ignored_fields=["seen_at", "/plan/*/at"],
        writer_sequence=-7,
    )
    request = server.asked[0].request
    assert request == agent_state_service_pb2.SaveAgentStateRequest(
        run_id="run-1",
        thread_id="thread-1",
        user_id="user-1",
        state=agent_state_pb2.State(data=b'{"step":1}', content_type="application/json"),
        checkpoint_type=agent_state_pb2.CHECKPOINT_TYPE_AUTO,
        agent_phase="planning",
        execution_context={"host": "a"},
        is_recovery_point=True,
        expires_at=request.expires_at,
        request_id="mine",
        attempt=3,
        expected_version=0,
        ignored_fields=["seen_at", "/plan/*/at"],
        writer_sequence=-7,
    )
    assert request.expires_at.ToDatetime(tzinfo=UTC) == moment


async def test_a_plain_save_is_manual_and_expects_nothing(
    client: AsyncClient, server: ScriptedServer
) -> None:
    await client.save("run-1", None)
    request = server.asked[0].request
    assert request.checkpoint_type == agent_state_pb2.CHECKPOINT_TYPE_MANUAL
    assert request.attempt == 1
    for absent in ("expected_version", "writer_sequence", "expires_at"):
        assert not request.HasField(absent)


async def test_save_gives_a_typed_result(client: AsyncClient, server: ScriptedServer) -> None:
    cause = agent_state_pb2.FallbackCause(reason="CIRCUIT_OPEN", message="it rests")
    server.will(
        "SaveAgentState",
        lambda request, context: saved(
            request,
            outcome=agent_state_pb2.SAVE_OUTCOME_SKIPPED,
            reason=agent_state_pb2.DECISION_REASON_UNCHANGED,
            version=7,
            fallback_cause=cause,
            replayed=True,
            changed_fields=[],
        ),
    )
    result = await client.save("run-1", {}, request_id="mine")
    assert result == SaveResult(
        outcome=SaveOutcome.SKIPPED,
        snapshot_id="0199aaaa-0000-7000-8000-000000000001",
        version=7,
        state_sha256=hashlib.sha256(b"{}").digest(),
        comparison_hash=b"c" * 32,
        changed_fields=(),
        changed_fields_truncated=False,
        reason=DecisionReason.UNCHANGED,
        path=ServingPath.OPTIMIZED,
        fallback_cause=FallbackCause("CIRCUIT_OPEN", "it rests"),
        request_id="mine",
        replayed=True,
    )
    assert result.skipped
    assert not result.persisted


async def test_words_of_newer_servers_survive(client: AsyncClient, server: ScriptedServer) -> None:
    server.will(
        "SaveAgentState",
        lambda request, context: saved(request, outcome=77, reason=78, path=79),
    )
    server.will("LoadAgentState", answers(loaded(b"{}", checkpoint_type=99)))
    result = await client.save("run-1", {}, checkpoint_type=CheckpointType("UNKNOWN_42"))
    assert server.asked[0].request.checkpoint_type == 42
    assert [result.outcome, result.reason, result.path] == [
        "UNKNOWN_77",
        "UNKNOWN_78",
        "UNKNOWN_79",
    ]
    assert isinstance(result.outcome, SaveOutcome)
    assert not result.persisted
    assert not result.skipped
    again = (await client.load("run-1")).snapshot.checkpoint_type
    await client.save("run-1", {}, checkpoint_type=again)
    assert server.asked[-1].request.checkpoint_type == 99


async def test_a_duration_counts_from_the_request_id(
    client: AsyncClient, server: ScriptedServer
) -> None:
    result = await client.save("run-1", {}, expires_at=timedelta(hours=1))
    start = made_at(result.request_id)
    assert start is not None
    request = server.asked[0].request
    assert request.expires_at.ToDatetime(tzinfo=UTC) == start + timedelta(hours=1)
    with pytest.raises(ValueError, match="give a datetime"):
        await client.save("run-1", {}, expires_at=timedelta(hours=1), request_id="mine")
    with pytest.raises(ValueError, match="no time zone"):
        await client.save("run-1", {}, expires_at=datetime(2031, 1, 1))  # noqa: DTZ001  # the point


async def test_the_state_is_read_before_anything_is_awaited(server: ScriptedServer) -> None:
    state = {"step": 1}
    async with AsyncClient(server.target) as client:
        call = asyncio.create_task(client.save("run-1", state))
        await asyncio.sleep(0)
        state["step"] = 2
        await call
    assert server.asked[0].request.state.data == b'{"step":1}'


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"run_id": 5}, "run_id"),
        ({"thread_id": None}, "thread_id"),
        ({"execution_context": {"a": 1}}, "execution_context"),
        ({"ignored_fields": "name"}, "ignored_fields"),
        ({"ignored_fields": [1]}, "ignored_fields"),
        ({"state": {1, 2}}, "state.data"),
        ({"content_type": "text/plain"}, "content type"),
    ],
)
async def test_wrong_types_are_named(
    client: AsyncClient, server: ScriptedServer, options: dict[str, object], field: str
) -> None:
    arguments: dict[str, object] = {"run_id": "run-1", "state": {}, **options}
    with pytest.raises(TypeError, match=field):
        await client.save(**arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert not server.asked


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"run_id": "\ud800"}, "run_id"),
        ({"execution_context": {"\ud800": ""}}, "execution_context"),
        ({"expected_version": 1 << 63}, "expected_version"),
        ({"writer_sequence": -(1 << 63) - 1}, "writer_sequence"),
        ({"attempt": 1 << 31}, "attempt"),
        ({"state": float("nan")}, "state.data"),
    ],
)
async def test_what_cannot_be_sent_is_refused_by_its_field(
    client: AsyncClient, server: ScriptedServer, options: dict[str, object], field: str
) -> None:
    arguments: dict[str, object] = {"run_id": "run-1", "state": {}, "request_id": "mine", **options}
    with pytest.raises(InvalidRequest) as caught:
        await client.save(**arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.field == field
    assert caught.value.request_id == "mine"
    assert not server.asked


async def test_an_unknown_checkpoint_type_is_a_mistake(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="SOMETIMES"):
        await client.save("run-1", {}, checkpoint_type="SOMETIMES")  # type: ignore[arg-type]  # on purpose


async def test_a_message_over_the_limit_is_refused_here(
    client: AsyncClient, server: ScriptedServer
) -> None:
    state = b"\0" * (16 * 1024 * 1024 + 1)
    refused = await client.save_many([Save("run-1", state, request_id="mine")])
    assert isinstance(refused[0], InvalidRequest)
    assert refused[0].reason == "STATE_TOO_LARGE"
    assert refused[0].limit == 16 * 1024 * 1024
    assert refused[0].request_id == "mine"
    with pytest.raises(InvalidRequest) as caught:
        await client.save_many([Save("run-1", state[: 9 * 1024 * 1024]) for _ in range(2)])
    assert caught.value.field == "saves"
    assert not server.asked


async def test_an_answer_over_the_limit_is_named(
    client: AsyncClient, server: ScriptedServer
) -> None:
    server.will("LoadAgentState", answers(loaded(b"\0" * (16 * 1024 * 1024), "x/y")))
    with pytest.raises(InvalidRequest, match="larger than the other side takes"):
        await client.load("run-1")


async def test_large_states_pass_both_ways_in_parts(
    client: AsyncClient, server: ScriptedServer
) -> None:
    data = os.urandom(6_000_000)
    result = await client.save("run-1", data, request_id="mine", agent_phase="p")
    assert result.state_sha256 == hashlib.sha256(data).digest()
    (asked,) = server.asked
    assert asked.method == "SaveLargeAgentState"
    assert asked.request[0].save.agent_phase == "p"
    assert [len(part.chunk) for part in asked.request[1:]] == [1 << 20] * 5 + [757_120]

    server.will(
        "LoadAgentState", fails(grpc.StatusCode.INVALID_ARGUMENT, "STATE_TOO_LARGE", size="9")
    )
    whole = loaded(data, "application/octet-stream", head_version=7)
    server.will("LoadLargeAgentState", answers(in_parts(whole)))
    answer = await client.load("run-1", version=7)
    assert answer.state == answer.data == data
    assert answer.head_version == 7
    assert server.asked[-1].request.load.version == 7


async def test_parts_that_fail_or_do_not_fit_are_said(
    client: AsyncClient, server: ScriptedServer
) -> None:
    too_large = fails(grpc.StatusCode.INVALID_ARGUMENT, "STATE_TOO_LARGE")
    server.will("LoadAgentState", *[too_large] * 3)
    damaged = in_parts(loaded(b"0123456789", "x/y"))
    damaged[1].chunk = b"other"
    server.will(
        "LoadLargeAgentState",
        answers(damaged),
        answers(damaged[1:]),
        fails(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"),
    )
    for error in (DataLoss, Internal, NotFound):
        with pytest.raises(error):
            await client.load("run-1")


async def test_load_names_one_snapshot(client: AsyncClient, server: ScriptedServer) -> None:
    await client.load("run-1")
    await client.load("run-1", version=0)
    await client.load("run-1", snapshot_id="s")
    chosen = [asked.request.WhichOneof("selector") for asked in server.asked]
    assert chosen == [None, "version", "snapshot_id"]
    with pytest.raises(ValueError, match="not both"):
        await client.load("run-1", version=1, snapshot_id="s")


async def test_load_gives_state_bytes_and_metadata(
    client: AsyncClient, server: ScriptedServer
) -> None:
    data = b'{ "n": 18446744073709551617 }'
    answer = loaded(
        data,
        head_version=9,
        version=4,
        agent_phase="planning",
        execution_context={"host": "a"},
        thread_id="thread-1",
    )
    moment = datetime(2031, 1, 1, tzinfo=UTC)
    answer.snapshot.expires_at.FromDatetime(moment)
    server.will("LoadAgentState", answers(answer))
    state = await client.load("run-1", version=4)
    assert state.state == {"n": 18446744073709551617}
    assert state.data == data
    assert (state.version, state.head_version) == (4, 9)
    assert state.snapshot_id == answer.snapshot.snapshot_id
    assert state.snapshot.execution_context == {"host": "a"}
    assert state.snapshot.checkpoint_type is CheckpointType.MANUAL
    assert state.snapshot.expires_at == moment
    assert state.snapshot.thread_id == "thread-1"


@dataclass
class Plan:
    step: int


async def test_load_builds_models(client: AsyncClient) -> None:
    assert (await client.load("run-1", as_=Plan)).state == Plan(step=1)


async def test_load_notices_damage(client: AsyncClient, server: ScriptedServer) -> None:
    server.will("LoadAgentState", answers(loaded(b"{}", state_sha256=b"\0" * 32)))
    with pytest.raises(DataLoss) as caught:
        await client.load("run-1")
    assert caught.value.reason == "STATE_CORRUPT"


async def test_save_many_answers_each(client: AsyncClient, server: ScriptedServer) -> None:
    def step(request: agent_state_service_pb2.BatchSaveAgentStatesRequest, _: object) -> object:
        results = [
            agent_state_service_pb2.BatchSaveResult(saved=saved(request.saves[0])),
            agent_state_service_pb2.BatchSaveResult(
                error=agent_state_service_pb2.BatchSaveError(
                    code=10,
                    reason="VERSION_CONFLICT",
                    message="somebody was faster",
                    metadata={"expected_version": "1", "actual_version": "2"},
                )
            ),
        ]
        return agent_state_service_pb2.BatchSaveAgentStatesResponse(results=results)

    server.will("BatchSaveAgentStates", step)
    saves = [
        Save("run-1", {"step": 1}),
        Save("run-2", float("inf")),  # is refused here, and takes nobody with it
        Save("run-3", {"step": 3}, expected_version=1),
    ]
    first, second, third = await client.save_many(saves)
    assert isinstance(first, SaveResult)
    assert first.request_id == saves[0].request_id
    assert isinstance(second, InvalidRequest)
    assert second.request_id == saves[1].request_id
    assert isinstance(third, VersionConflict)
    assert third.code is grpc.StatusCode.ABORTED
    assert third.actual == 2
    assert third.request_id == saves[2].request_id
    assert [save.run_id for save in server.asked[0].request.saves] == ["run-1", "run-3"]
    assert not server.asked[0].request.atomic


async def test_a_batch_of_refused_saves_is_not_sent(
    client: AsyncClient, server: ScriptedServer
) -> None:
    (only,) = await client.save_many([Save("run-1", float("nan"))])
    assert isinstance(only, InvalidRequest)
    assert not server.asked


async def test_an_atomic_batch_fails_as_a_whole(
    client: AsyncClient, server: ScriptedServer
) -> None:
    step = fails(grpc.StatusCode.ABORTED, "VERSION_CONFLICT", index="1", actual_version="2")
    server.will("BatchSaveAgentStates", step)
    saves = [Save("run-1", 1), Save("run-2", 2)]
    with pytest.raises(VersionConflict) as caught:
        await client.save_many(saves, atomic=True)
    assert server.asked[0].request.atomic
    assert caught.value.request_id == saves[1].request_id
    with pytest.raises(InvalidRequest) as refused:
        await client.save_many([Save("run-1", 1), Save("run-2", float("nan"))], atomic=True)
    assert refused.value.field == "saves[1].state.data"
    assert len(server.asked) == 1


async def test_answers_that_are_missing_are_noticed(
    client: AsyncClient, server: ScriptedServer
) -> None:
    empty = agent_state_service_pb2.BatchSaveAgentStatesResponse()
    server.will("BatchSaveAgentStates", answers(empty))
    with pytest.raises(Internal, match="1 saves, but 0 answers"):
        await client.save_many([Save("run-1", 1)])


async def test_lists_page_as_they_are_read(client: AsyncClient, server: ScriptedServer) -> None:
    def page(*versions: int, token: str = "") -> object:
        metadata = agent_state_pb2.SnapshotMetadata
        return agent_state_service_pb2.ListSnapshotsResponse(
            snapshots=[metadata(run_id="run-1", version=version) for version in versions],
            next_page_token=token,
        )

    server.will(
        "ListSnapshots", answers(page(4, 3, token="t")), answers(page(token="u")), answers(page(2))
    )
    found = client.list_snapshots("run-1", page_size=2)
    assert (await anext(found)).version == 4
    assert (await anext(found)).version == 3
    assert len(server.asked) == 1
    assert [snapshot.version async for snapshot in found] == [2]
    sent = [(asked.request.page_size, asked.request.page_token) for asked in server.asked]
    assert sent == [(2, ""), (2, "t"), (2, "u")]


async def test_runs_are_listed_by_thread_and_user(
    client: AsyncClient, server: ScriptedServer
) -> None:
    run = agent_state_pb2.RunMetadata(run_id="run-1", version=3, thread_id="t")
    run.persisted_at.FromDatetime(datetime(2031, 1, 1, tzinfo=UTC))
    page = agent_state_service_pb2.ListRunsResponse
    server.will("ListRuns", answers(page(next_page_token="more")), answers(page(runs=[run])))
    (found,) = [run async for run in client.list_runs(thread_id="t", user_id="u")]
    assert [asked.request.page_token for asked in server.asked] == ["", "more"]
    assert (found.run_id, found.version, found.thread_id) == ("run-1", 3, "t")
    assert found.persisted_at == datetime(2031, 1, 1, tzinfo=UTC)
    request = server.asked[0].request
    assert (request.thread_id, request.user_id) == ("t", "u")


async def test_delete_run_counts(client: AsyncClient, server: ScriptedServer) -> None:
    assert await client.delete_run("run-1") == 3
    assert server.asked[0].request.run_id == "run-1"
