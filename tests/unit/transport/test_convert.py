"""Messages become commands and back, whatever they hold."""

import contextlib

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from statekeep.v1 import agent_state_pb2, agent_state_service_pb2
from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    LoadedState,
    Newest,
    Outcome,
    Path,
    Reason,
    Run,
    RunKey,
    SaveCommand,
    SaveResult,
    Snapshot,
)
from statekeep_server.service.answers import FallbackCause, SaveAck
from statekeep_server.transport import convert

KEY = RunKey("default", "run-1")
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(max_size=20)  # hypothesis leaves surrogates out, as protobuf does


def test_a_full_message_becomes_a_full_command() -> None:
    request = agent_state_service_pb2.SaveAgentStateRequest(
        run_id="run-1",
        thread_id="thread-1",
        user_id="user-1",
        state=agent_state_pb2.State(data=b"\x00\xff", content_type="application/x-thing"),
        checkpoint_type=agent_state_pb2.CHECKPOINT_TYPE_AUTO,
        agent_phase="planning",
        execution_context={"b": "2", "a": "1"},
        is_recovery_point=True,
        expires_at=Timestamp(seconds=10, nanos=1_999),
        request_id="r-1",
        attempt=2,
        expected_version=0,
        ignored_fields=["at", "/plan/*/at"],
        writer_sequence=0,
    )
    assert convert.save_command(request, tenant="default") == SaveCommand(
        key=KEY,
        state=b"\x00\xff",
        content_type="application/x-thing",
        thread_id="thread-1",
        user_id="user-1",
        checkpoint_type="AUTO",
        agent_phase="planning",
        execution_context=(("a", "1"), ("b", "2")),
        is_recovery_point=True,
        expires_at_us=10_000_001,
        request_id="r-1",
        attempt=2,
        expected_version=0,
        ignored_fields=("at", "/plan/*/at"),
        writer_sequence=0,
    )


def test_a_bare_message_becomes_a_command_of_defaults() -> None:
    request = agent_state_service_pb2.SaveAgentStateRequest(
        run_id="run-1", state=agent_state_pb2.State(data=b"{}")
    )
    assert convert.save_command(request, tenant="default") == SaveCommand(key=KEY, state=b"{}")


def test_an_empty_state_is_a_state_and_an_absent_one_is_not() -> None:
    request = agent_state_service_pb2.SaveAgentStateRequest(run_id="run-1")
    with pytest.raises(InvalidField) as caught:
        convert.save_command(request, tenant="default")
    assert caught.value.field == "state"
    request.state.SetInParent()
    assert convert.save_command(request, tenant="default").state == b""


@pytest.mark.parametrize(
    ("stated", "previous", "attempt"),
    [(0, 0, 1), (1, 0, 1), (3, 0, 3), (0, 2, 3), (1, 1, 2), (5, 1, 5), (-7, 0, 1)],
)
def test_a_repetition_by_the_library_raises_the_attempt(
    stated: int, previous: int, attempt: int
) -> None:
    request = agent_state_service_pb2.SaveAgentStateRequest(
        run_id="run-1", state=agent_state_pb2.State(data=b"{}"), attempt=stated
    )
    command = convert.save_command(request, tenant="default", previous_attempts=previous)
    assert command.attempt == attempt


@given(
    st.builds(
        agent_state_service_pb2.SaveAgentStateRequest,
        run_id=TEXT,
        state=st.none()
        | st.builds(agent_state_pb2.State, data=st.binary(max_size=20), content_type=TEXT),
        checkpoint_type=INT32,
        execution_context=st.dictionaries(TEXT, TEXT, max_size=3),
        expires_at=st.none() | st.builds(Timestamp, seconds=INT64, nanos=INT32),
        attempt=INT32,
        expected_version=st.none() | INT64,
        ignored_fields=st.lists(TEXT, max_size=3),
        writer_sequence=st.none() | INT64,
    ),
    st.integers(0, 999),
)
def test_no_message_raises_anything_but_a_named_field(
    request: agent_state_service_pb2.SaveAgentStateRequest, previous: int
) -> None:
    with contextlib.suppress(InvalidField):
        command = convert.save_command(request, tenant="default", previous_attempts=previous)
        assert command.attempt > previous
        assert command.content_type


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(-62_135_596_801, 0), (253_402_300_800, 0), (2**63 - 1, 0), (0, -1), (0, 1_000_000_000)],
)
def test_a_moment_out_of_range_names_its_field(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidField) as caught:
        convert.microseconds(Timestamp(seconds=seconds, nanos=nanos), "expires_at")
    assert caught.value.field == "expires_at"


@given(st.integers(-62_135_596_800 * 10**6, 253_402_300_800 * 10**6 - 1))
def test_moments_come_back(moment_us: int) -> None:
    assert convert.microseconds(convert.timestamp(moment_us), "at") == moment_us


def test_selectors() -> None:
    request = agent_state_service_pb2.LoadAgentStateRequest
    assert convert.selector(request(run_id="r")) == Newest()
    assert convert.selector(request(run_id="r", version=0)) == ByVersion(0)
    assert convert.selector(request(run_id="r", version=4)) == ByVersion(4)
    assert convert.selector(request(run_id="r", snapshot_id="")) == ById("")
    assert convert.selector(request(run_id="r", snapshot_id="s")) == ById("s")


RESULT = SaveResult(
    outcome=Outcome.SKIPPED,
    reason=Reason.UNCHANGED,
    snapshot_id="s-1",
    version=7,
    state_sha256=b"a" * 32,
    comparison_hash=b"b" * 32,
    changed_fields=("plan", "step"),
    changed_fields_truncated=True,
    request_id="r-1",
    replayed=True,
)


def test_an_acknowledgement_is_written_whole() -> None:
    cause = FallbackCause("STORAGE_UNAVAILABLE", "the database is away")
    response = convert.save_response(SaveAck(RESULT, Path.STANDARD, cause))
    assert response == agent_state_service_pb2.SaveAgentStateResponse(
        outcome=agent_state_pb2.SAVE_OUTCOME_SKIPPED,
        snapshot_id="s-1",
        version=7,
        state_sha256=b"a" * 32,
        comparison_hash=b"b" * 32,
        changed_fields=["plan", "step"],
        changed_fields_truncated=True,
        reason=agent_state_pb2.DECISION_REASON_UNCHANGED,
        path=agent_state_pb2.SERVING_PATH_STANDARD,
        fallback_cause=agent_state_pb2.FallbackCause(
            reason="STORAGE_UNAVAILABLE", message="the database is away"
        ),
        request_id="r-1",
        replayed=True,
    )


def test_without_a_fallback_there_is_no_cause() -> None:
    response = convert.save_response(SaveAck(RESULT, Path.OPTIMIZED))
    assert not response.HasField("fallback_cause")


SNAPSHOT = Snapshot(
    key=KEY,
    snapshot_id="s-1",
    version=7,
    thread_id="thread-1",
    user_id="user-1",
    checkpoint_type="UNKNOWN_99",
    agent_phase="planning",
    execution_context=(("a", "1"),),
    is_recovery_point=True,
    persisted_at_us=1_000_001,
    expires_at_us=None,
    content_type="application/json",
    state_bytes=2,
    state_sha256=b"a" * 32,
    comparison_hash=b"b" * 32,
    state=b"{}",
)


def test_a_loaded_state_is_written_whole() -> None:
    response = convert.load_response(LoadedState(snapshot=SNAPSHOT, head_version=9))
    assert response == agent_state_service_pb2.LoadAgentStateResponse(
        snapshot=agent_state_pb2.SnapshotMetadata(
            run_id="run-1",
            snapshot_id="s-1",
            version=7,
            thread_id="thread-1",
            user_id="user-1",
            checkpoint_type=agent_state_pb2.CheckpointType.ValueType(99),
            agent_phase="planning",
            execution_context={"a": "1"},
            is_recovery_point=True,
            persisted_at=Timestamp(seconds=1, nanos=1_000),
            content_type="application/json",
            state_bytes=2,
            state_sha256=b"a" * 32,
            comparison_hash=b"b" * 32,
        ),
        state=agent_state_pb2.State(data=b"{}", content_type="application/json"),
        head_version=9,
    )
    assert not response.snapshot.HasField("expires_at")


def test_a_run_whose_snapshot_expired_has_no_snapshot_id() -> None:
    run = Run(
        key=KEY, thread_id="", user_id="", version=3, snapshot_id=None, persisted_at_us=1_500_000
    )
    assert convert.run_metadata(run) == agent_state_pb2.RunMetadata(
        run_id="run-1", version=3, persisted_at=Timestamp(seconds=1, nanos=500_000_000)
    )
