"""Messages of AgentStateService to the domain's values, and back.

Total: no message raises anything but InvalidField. Only what the domain cannot see is checked here
(a message without a state, a timestamp out of range); everything else is checked by
`domain.validation`.
"""

from google.protobuf.timestamp_pb2 import Timestamp

from statekeep.v1 import agent_state_pb2, agent_state_service_pb2
from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.model import (
    JSON_CONTENT_TYPE,
    ById,
    ByVersion,
    LoadedState,
    Newest,
    Run,
    RunKey,
    SaveCommand,
    Selector,
    Snapshot,
    make_context,
)
from statekeep_server.service.answers import SaveAck
from statekeep_server.transport import words

_US_PER_S = 1_000_000
_NS_PER_US = 1_000
# The contract of Timestamp itself: the years 1 to 9999.
_MIN_SECONDS = -62_135_596_800
_MAX_SECONDS = 253_402_300_799


def save_command(
    request: agent_state_service_pb2.SaveAgentStateRequest,
    *,
    tenant: str,
    previous_attempts: int = 0,
) -> SaveCommand:
    """Read one save.

    `previous_attempts` is what the caller's gRPC library repeated by itself: such a repetition
    carries the same message, so it raises the message's own attempt number.

    Raises:
        InvalidField: The state is missing, or `expires_at` is not a moment.
    """
    if not request.HasField("state"):
        raise InvalidField("state", "is required")
    state = request.state
    return SaveCommand(
        key=RunKey(tenant, request.run_id),
        state=state.data,  # read once: every reading copies the bytes
        content_type=state.content_type or JSON_CONTENT_TYPE,
        thread_id=request.thread_id,
        user_id=request.user_id,
        checkpoint_type=words.checkpoint_name(request.checkpoint_type),
        agent_phase=request.agent_phase,
        execution_context=make_context(context) if (context := request.execution_context) else (),
        is_recovery_point=request.is_recovery_point,
        expires_at_us=(
            microseconds(request.expires_at, "expires_at")
            if request.HasField("expires_at")
            else None
        ),
        request_id=request.request_id,
        attempt=max(request.attempt, previous_attempts + 1),
        expected_version=(
            request.expected_version if request.HasField("expected_version") else None
        ),
        ignored_fields=tuple(request.ignored_fields),
        writer_sequence=request.writer_sequence if request.HasField("writer_sequence") else None,
        write_behind=request.write_behind,
    )


def selector(request: agent_state_service_pb2.LoadAgentStateRequest) -> Selector:
    """Read which snapshot a load asks for."""
    match request.WhichOneof("selector"):
        case "version":
            return ByVersion(request.version)
        case "snapshot_id":
            return ById(request.snapshot_id)
        case _:
            return Newest()


def microseconds(moment: Timestamp, field: str) -> int:
    """Read a timestamp, rounded down to microseconds since the epoch.

    Raises:
        InvalidField: It is out of the range that the contract gives timestamps.
    """
    if not (_MIN_SECONDS <= moment.seconds <= _MAX_SECONDS and 0 <= moment.nanos < 1_000_000_000):
        raise InvalidField(field, "must be a moment between the years 1 and 9999")
    return moment.seconds * _US_PER_S + moment.nanos // _NS_PER_US


def timestamp(moment_us: int) -> Timestamp:
    """Write a moment."""
    seconds, rest_us = divmod(moment_us, _US_PER_S)
    return Timestamp(seconds=seconds, nanos=rest_us * _NS_PER_US)


def save_response(ack: SaveAck) -> agent_state_service_pb2.SaveAgentStateResponse:
    """Write the acknowledgement of a save."""
    result, cause = ack.result, ack.fallback_cause
    return agent_state_service_pb2.SaveAgentStateResponse(
        outcome=words.outcome_number(result.outcome),
        snapshot_id=result.snapshot_id,
        version=result.version,
        state_sha256=result.state_sha256,
        comparison_hash=result.comparison_hash,
        changed_fields=result.changed_fields,
        changed_fields_truncated=result.changed_fields_truncated,
        reason=words.reason_number(result.reason),
        path=words.path_number(ack.path),
        fallback_cause=(
            agent_state_pb2.FallbackCause(reason=cause.reason, message=cause.message)
            if cause
            else None
        ),
        request_id=result.request_id,
        replayed=result.replayed,
    )


def load_response(
    loaded: LoadedState, *, with_data: bool = True
) -> agent_state_service_pb2.LoadAgentStateResponse:
    """Write a snapshot with its state, or all but the state's data."""
    snapshot = loaded.snapshot
    data = (snapshot.state or b"") if with_data else b""
    return agent_state_service_pb2.LoadAgentStateResponse(
        snapshot=snapshot_metadata(snapshot),
        state=agent_state_pb2.State(data=data, content_type=snapshot.content_type),
        head_version=loaded.head_version,
    )


def snapshot_metadata(snapshot: Snapshot) -> agent_state_pb2.SnapshotMetadata:
    """Write what a snapshot is, without its state."""
    expires_at_us = snapshot.expires_at_us
    return agent_state_pb2.SnapshotMetadata(
        run_id=snapshot.key.run_id,
        snapshot_id=snapshot.snapshot_id,
        version=snapshot.version,
        thread_id=snapshot.thread_id,
        user_id=snapshot.user_id,
        checkpoint_type=words.checkpoint_number(snapshot.checkpoint_type),
        agent_phase=snapshot.agent_phase,
        execution_context=dict(snapshot.execution_context),
        is_recovery_point=snapshot.is_recovery_point,
        persisted_at=timestamp(snapshot.persisted_at_us),
        expires_at=None if expires_at_us is None else timestamp(expires_at_us),
        content_type=snapshot.content_type,
        state_bytes=snapshot.state_bytes,
        state_sha256=snapshot.state_sha256,
        comparison_hash=snapshot.comparison_hash,
    )


def run_metadata(run: Run) -> agent_state_pb2.RunMetadata:
    """Write what a run is."""
    return agent_state_pb2.RunMetadata(
        run_id=run.key.run_id,
        thread_id=run.thread_id,
        user_id=run.user_id,
        version=run.version,
        snapshot_id=run.snapshot_id or "",
        persisted_at=timestamp(run.persisted_at_us),
    )
