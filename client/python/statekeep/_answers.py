"""From the messages of the contract to the values that a caller gets."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from statekeep._codec import decode_state
from statekeep._errors import DataLoss, Internal, StatekeepError
from statekeep._status import error_of_item
from statekeep._types import (
    CheckpointType,
    DecisionReason,
    FallbackCause,
    LoadedState,
    RunMetadata,
    Save,
    SaveOutcome,
    SaveResult,
    ServingPath,
    SnapshotMetadata,
)
from statekeep.v1 import agent_state_pb2
from statekeep.v1.agent_state_service_pb2 import (
    BatchSaveAgentStatesResponse,
    BatchSaveResult,
    LoadAgentStateResponse,
    LoadLargeAgentStateResponse,
    SaveAgentStateResponse,
)

E = TypeVar("E", CheckpointType, DecisionReason, SaveOutcome, ServingPath)


def words(enum: EnumDescriptor) -> Mapping[int, str]:
    """List the words of an enum of the contract by their numbers, without the common prefix."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.values if value.number}


CHECKPOINT_TYPES = words(agent_state_pb2.CheckpointType.DESCRIPTOR)
DECISION_REASONS = words(agent_state_pb2.DecisionReason.DESCRIPTOR)
SAVE_OUTCOMES = words(agent_state_pb2.SaveOutcome.DESCRIPTOR)
SERVING_PATHS = words(agent_state_pb2.ServingPath.DESCRIPTOR)


def known(kind: Callable[[str], E], word_of: Mapping[int, str], number: int) -> E:
    """Read an enum. A number that this client has no word for becomes `UNKNOWN_n`."""
    return kind(word_of.get(number, f"UNKNOWN_{number}"))


def moment(timestamp: Timestamp) -> datetime:
    """Read a timestamp."""
    return timestamp.ToDatetime(tzinfo=UTC)


def save_result(response: SaveAgentStateResponse) -> SaveResult:
    """Read the answer to a save."""
    cause: FallbackCause | None = None
    if response.HasField("fallback_cause"):
        cause = FallbackCause(response.fallback_cause.reason, response.fallback_cause.message)
    return SaveResult(
        outcome=known(SaveOutcome, SAVE_OUTCOMES, response.outcome),
        snapshot_id=response.snapshot_id,
        version=response.version or None,
        state_sha256=response.state_sha256,
        comparison_hash=response.comparison_hash,
        changed_fields=tuple(response.changed_fields),
        changed_fields_truncated=response.changed_fields_truncated,
        reason=known(DecisionReason, DECISION_REASONS, response.reason),
        path=known(ServingPath, SERVING_PATHS, response.path),
        fallback_cause=cause,
        request_id=response.request_id,
        replayed=response.replayed,
    )


def batch_results(
    response: BatchSaveAgentStatesResponse,
    saves: Sequence[Save],
    refused: Mapping[int, StatekeepError],
) -> list[SaveResult | StatekeepError]:
    """Read the answers to a batch, in the order of its saves, those that were never sent too."""
    sent = len(saves) - len(refused)
    if len(response.results) != sent:
        raise Internal(f"{sent} saves, but {len(response.results)} answers")
    answers = iter(response.results)
    return [
        refused[index] if index in refused else _batch_result(next(answers), save)
        for index, save in enumerate(saves)
    ]


def _batch_result(result: BatchSaveResult, save: Save) -> SaveResult | StatekeepError:
    if result.HasField("saved"):
        return save_result(result.saved)
    return error_of_item(result.error, request_id=save.request_id)


def failed_save(error: StatekeepError, saves: Sequence[Save]) -> str:
    """Find the request id of the save that failed an atomic batch; empty when none is named."""
    index = error.number("index")
    return saves[index].request_id if index is not None and 0 <= index < len(saves) else ""


def loaded_state(
    response: LoadAgentStateResponse, as_: Callable[..., Any] | None
) -> LoadedState[Any]:
    """Read a loaded state, after a check that it is what was stored.

    Raises:
        DataLoss: The bytes do not match their SHA-256.
        TypeError, ValueError: The state does not fit `as_`.
    """
    return checked_state(response, response.state.data, as_)  # once: every access copies it


def loaded_parts(
    parts: Sequence[LoadLargeAgentStateResponse], as_: Callable[..., Any] | None
) -> LoadedState[Any]:
    """Read a state that came in parts. Raises as `loaded_state` does."""
    if not parts or not parts[0].HasField("loaded"):
        raise Internal("a snapshot without its head")
    return checked_state(parts[0].loaded, b"".join(part.chunk for part in parts[1:]), as_)


def checked_state(
    response: LoadAgentStateResponse, data: bytes, as_: Callable[..., Any] | None
) -> LoadedState[Any]:
    """Put a snapshot and its data together."""
    snapshot = snapshot_metadata(response.snapshot)
    if hashlib.sha256(data).digest() != snapshot.state_sha256:
        raise DataLoss(
            f"snapshot {snapshot.snapshot_id} of run {snapshot.run_id!r} was damaged on its way: "
            "it does not match its SHA-256",
            code=grpc.StatusCode.DATA_LOSS,
            reason="STATE_CORRUPT",
            metadata={"run_id": snapshot.run_id, "snapshot_id": snapshot.snapshot_id},
        )
    return LoadedState(
        state=decode_state(data, snapshot.content_type, as_),
        data=data,
        head_version=response.head_version,
        snapshot=snapshot,
    )


def snapshot_metadata(message: agent_state_pb2.SnapshotMetadata) -> SnapshotMetadata:
    """Read the description of a snapshot."""
    return SnapshotMetadata(
        run_id=message.run_id,
        snapshot_id=message.snapshot_id,
        version=message.version,
        thread_id=message.thread_id,
        user_id=message.user_id,
        checkpoint_type=known(CheckpointType, CHECKPOINT_TYPES, message.checkpoint_type),
        agent_phase=message.agent_phase,
        execution_context=dict(message.execution_context),
        is_recovery_point=message.is_recovery_point,
        persisted_at=moment(message.persisted_at),
        expires_at=moment(message.expires_at) if message.HasField("expires_at") else None,
        content_type=message.content_type,
        state_bytes=message.state_bytes,
        state_sha256=message.state_sha256,
        comparison_hash=message.comparison_hash,
    )


def run_metadata(message: agent_state_pb2.RunMetadata) -> RunMetadata:
    """Read the description of a run."""
    return RunMetadata(
        run_id=message.run_id,
        thread_id=message.thread_id,
        user_id=message.user_id,
        version=message.version,
        snapshot_id=message.snapshot_id,
        persisted_at=moment(message.persisted_at),
    )
