"""From a caller's arguments to the messages of the contract.

What protobuf or gRPC would refuse with words of their own is refused here by the name of its
field.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from statekeep._channel import MAX_MESSAGE_BYTES
from statekeep._codec import encode_state
from statekeep._errors import InvalidRequest, StatekeepError
from statekeep._ids import made_at
from statekeep._types import CheckpointType, Save, SnapshotMetadata
from statekeep.v1 import agent_state_pb2
from statekeep.v1.admin_service_pb2 import (
    ListFlagChangesRequest,
    SetFlagRequest,
    UnsetFlagRequest,
)
from statekeep.v1.agent_state_service_pb2 import (
    BatchSaveAgentStatesRequest,
    DeleteRunRequest,
    ListRunsRequest,
    ListSnapshotsRequest,
    LoadAgentStateRequest,
    LoadLargeAgentStateRequest,
    SaveAgentStateRequest,
    SaveLargeAgentStateRequest,
)

LARGE_BYTES = 3_670_016
"""3.5 MiB: what a server takes in one message, unless it was put together otherwise."""
CHUNK_BYTES = 1024 * 1024

_TEXT_FIELDS = ("run_id", "thread_id", "user_id", "agent_phase", "request_id", "content_type")


def save_request(save: Save) -> SaveAgentStateRequest:
    """Make the message of a save. The state is encoded here, once.

    Raises:
        InvalidRequest: The state cannot be encoded, or a field cannot be sent.
        TypeError: A field has a value of another type.
        ValueError: The checkpoint type is unknown, or `expires_at` says no moment.
    """
    request = any_save_request(save)
    try:
        _check_size(request, "state.data")
    except StatekeepError as error:
        error.request_id = save.request_id
        raise
    return request


def any_save_request(save: Save) -> SaveAgentStateRequest:
    """Make the message of a save, though it may have to be sent in parts."""
    try:
        return _save_message(save)
    except StatekeepError as error:
        error.request_id = save.request_id
        raise


def is_large(request: SaveAgentStateRequest) -> bool:
    """Whether a save is sent in parts, as servers take no such state in one message."""
    return request.ByteSize() > LARGE_BYTES and len(request.state.data) > LARGE_BYTES


def large_parts(request: SaveAgentStateRequest) -> Iterator[SaveLargeAgentStateRequest]:
    """Cut a large save into messages."""
    data = memoryview(request.state.data)
    request.state.data = b""
    yield SaveLargeAgentStateRequest(save=request)
    for start in range(0, len(data), CHUNK_BYTES):
        yield SaveLargeAgentStateRequest(chunk=bytes(data[start : start + CHUNK_BYTES]))


@dataclass(frozen=True, slots=True)
class Batch:
    """The message of a batch, and the saves that were refused before it was sent, by position."""

    request: BatchSaveAgentStatesRequest
    refused: Mapping[int, StatekeepError]


def make_batch(saves: Sequence[Save], *, atomic: bool, attempt: int | None) -> Batch:
    """Make the message of a batch. `attempt`, if given, counts for every save.

    A save that cannot be encoded fails alone, unless the batch is atomic. Raises as
    `save_request` does.
    """
    request = BatchSaveAgentStatesRequest(atomic=atomic)
    refused: dict[int, StatekeepError] = {}
    for index, save in enumerate(saves):
        try:
            message = save_request(save)
        except InvalidRequest as error:
            if atomic:
                error.metadata = {
                    **error.metadata,
                    "field": f"saves[{index}].{error.field}",
                    "index": str(index),
                }
                raise
            refused[index] = error
            continue
        if attempt is not None:
            message.attempt = _fitting("attempt", attempt, 31)
        request.saves.append(message)
    _check_size(request, "saves")
    return Batch(request, refused)


def load_large_request(request: LoadAgentStateRequest) -> LoadLargeAgentStateRequest:
    """Ask for a snapshot in parts."""
    return LoadLargeAgentStateRequest(load=request)


def load_request(
    run_id: str, *, version: int | None, snapshot_id: str | None
) -> LoadAgentStateRequest:
    """Ask for the newest snapshot of a run, or for one by its version or id."""
    _check_text("run_id", run_id)
    if version is not None and snapshot_id is not None:
        raise ValueError("give a version or a snapshot_id, not both")
    request = LoadAgentStateRequest(run_id=run_id)
    if version is not None:
        request.version = _fitting("version", version, 63)
    if snapshot_id is not None:
        _check_text("snapshot_id", snapshot_id)
        request.snapshot_id = snapshot_id
    return request


def list_snapshots_request(run_id: str, *, page_size: int) -> ListSnapshotsRequest:
    """Ask for the first page of a run's snapshots."""
    _check_text("run_id", run_id)
    return ListSnapshotsRequest(run_id=run_id, page_size=_fitting("page_size", page_size, 31))


def list_runs_request(*, thread_id: str, user_id: str, page_size: int) -> ListRunsRequest:
    """Ask for the first page of runs."""
    _check_text("thread_id", thread_id)
    _check_text("user_id", user_id)
    page_size = _fitting("page_size", page_size, 31)
    return ListRunsRequest(thread_id=thread_id, user_id=user_id, page_size=page_size)


def set_flag_request(
    name: str,
    value: str,
    *,
    tenant: str,
    run_id: str,
    changed_by: str,
    expected_version: int | None,
) -> SetFlagRequest:
    """Ask for a flag to be set."""
    _check_text("value", value)
    unset = unset_flag_request(
        name,
        tenant=tenant,
        run_id=run_id,
        changed_by=changed_by,
        expected_version=expected_version,
    )
    return SetFlagRequest(
        name=name,
        value=value,
        tenant=tenant,
        run_id=run_id,
        changed_by=changed_by,
        expected_version=unset.expected_version if unset.HasField("expected_version") else None,
    )


def unset_flag_request(
    name: str, *, tenant: str, run_id: str, changed_by: str, expected_version: int | None
) -> UnsetFlagRequest:
    """Ask for a flag to be taken away."""
    texts = {"name": name, "tenant": tenant, "run_id": run_id, "changed_by": changed_by}
    for field, text in texts.items():
        _check_text(field, text)
    if expected_version is not None:
        expected_version = _fitting("expected_version", expected_version, 63)
    return UnsetFlagRequest(**texts, expected_version=expected_version)


def list_flag_changes_request(*, page_size: int) -> ListFlagChangesRequest:
    """Ask for the first page of the history of flags."""
    return ListFlagChangesRequest(page_size=_fitting("page_size", page_size, 31))


def standing_options(snapshot: SnapshotMetadata) -> dict[str, Any]:
    """Name what an update leaves as it is."""
    return {
        "thread_id": snapshot.thread_id,
        "user_id": snapshot.user_id,
        "agent_phase": snapshot.agent_phase,
        "execution_context": snapshot.execution_context,
        "content_type": snapshot.content_type,
    }


def delete_run_request(run_id: str) -> DeleteRunRequest:
    """Ask for the end of a run."""
    _check_text("run_id", run_id)
    return DeleteRunRequest(run_id=run_id)


def _save_message(save: Save) -> SaveAgentStateRequest:
    for name in _TEXT_FIELDS:
        _check_text(name, getattr(save, name))
    for key, value in save.execution_context.items():
        _check_text("execution_context", key)
        _check_text("execution_context", value)
    if isinstance(save.ignored_fields, str):
        raise TypeError("ignored_fields: a list of names, not one name")
    for field in save.ignored_fields:
        _check_text("ignored_fields", field)
    data, content_type = encode_state(save.state, save.content_type)
    request = SaveAgentStateRequest(
        run_id=save.run_id,
        thread_id=save.thread_id,
        user_id=save.user_id,
        state=agent_state_pb2.State(data=data, content_type=content_type),
        checkpoint_type=checkpoint_number(save.checkpoint_type),
        agent_phase=save.agent_phase,
        execution_context=save.execution_context,
        is_recovery_point=save.is_recovery_point,
        request_id=save.request_id,
        attempt=_fitting("attempt", save.attempt, 31),
        ignored_fields=save.ignored_fields,
        write_behind=save.write_behind,
    )
    if save.expected_version is not None:
        request.expected_version = _fitting("expected_version", save.expected_version, 63)
    if save.writer_sequence is not None:
        request.writer_sequence = _fitting("writer_sequence", save.writer_sequence, 63)
    if save.expires_at is not None:
        request.expires_at.FromDatetime(_moment(save.expires_at, save.request_id))
    return request


def _check_text(field: str, value: object) -> None:
    """Refuse what protobuf would refuse without saying where."""
    if not isinstance(value, str):
        raise TypeError(f"{field}: {value!r} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        message = "holds half of a surrogate pair, which UTF-8 cannot say"
        raise InvalidRequest.of_field(field, message) from None


def checkpoint_number(checkpoint_type: str) -> agent_state_pb2.CheckpointType.ValueType:
    """Give the contract's number of a checkpoint type.

    Raises:
        ValueError: The client knows no such type. One of a newer server reads `UNKNOWN_n`.
    """
    kind = CheckpointType(checkpoint_type)
    if kind in CheckpointType.__members__:
        return agent_state_pb2.CheckpointType.Value(f"CHECKPOINT_TYPE_{kind}")
    return int(kind.removeprefix("UNKNOWN_"))  # type: ignore[return-value]  # an open enum


def _moment(expires_at: datetime | timedelta, request_id: str) -> datetime:
    """Say when a snapshot expires. All attempts of a save must say the same moment.

    A duration counts from when the request id was made and not from now, or the second attempt
    would be another save than the first.
    """
    if isinstance(expires_at, timedelta):
        start = made_at(request_id)
        if start is None:
            raise ValueError(
                "expires_at: a duration needs a request id that the client made; "
                "give a datetime with one of your own, so that all attempts say the same"
            )
        return start + expires_at
    if expires_at.tzinfo is None:
        raise ValueError(f"expires_at: {expires_at} has no time zone")
    return expires_at


def _check_size(message: Message, field: str) -> None:
    """Refuse a message that gRPC would refuse with a status that means something else."""
    size = message.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise InvalidRequest.of_field(
            field,
            f"{size} bytes are more than fit a message ({MAX_MESSAGE_BYTES})",
            reason="STATE_TOO_LARGE",
            size=size,
            limit=MAX_MESSAGE_BYTES,
        )


def _fitting(field: str, value: int, bits: int) -> int:
    if not -(1 << bits) <= value < 1 << bits:
        raise InvalidRequest.of_field(field, f"{value} is no {bits + 1}-bit integer")
    return value
