"""THE table: every error of the domain and its gRPC status. The only place that knows both.

A failed call carries, by the rules of google.rpc, one `ErrorInfo` (reason, domain, metadata), for a
bad field one `BadRequest`, and where a retry may help a `RetryInfo`. gRPC's own retries obey only
the trailer `grpc-retry-pushback-ms`, so that is sent beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from statekeep.v1 import agent_state_service_pb2
from statekeep_server.domain import errors

DOMAIN = "statekeep.v1"
DETAILS_TRAILER = "grpc-status-details-bin"
PUSHBACK_TRAILER = "grpc-retry-pushback-ms"

CODES: Mapping[type[errors.StateError], StatusCode] = {
    errors.InvalidField: StatusCode.INVALID_ARGUMENT,
    errors.StateTooLarge: StatusCode.INVALID_ARGUMENT,
    errors.StateNotJson: StatusCode.INVALID_ARGUMENT,
    errors.DuplicateKey: StatusCode.INVALID_ARGUMENT,
    errors.TooDeep: StatusCode.INVALID_ARGUMENT,
    errors.IntegerTooLong: StatusCode.INVALID_ARGUMENT,
    errors.TooManyMembers: StatusCode.INVALID_ARGUMENT,
    # The name is taken by another save: no retry helps, and the first save stands.
    errors.RequestIdReused: StatusCode.ALREADY_EXISTS,
    # The caller must read again before it writes again.
    errors.VersionConflict: StatusCode.ABORTED,
    errors.StaleWriter: StatusCode.ABORTED,
    errors.FlagConflict: StatusCode.ABORTED,
    errors.RunNotFound: StatusCode.NOT_FOUND,
    errors.SnapshotNotFound: StatusCode.NOT_FOUND,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    # Another server, or this one after its restart, takes the same saves.
    errors.ShuttingDown: StatusCode.UNAVAILABLE,
    errors.StorageUnavailable: StatusCode.UNAVAILABLE,
    errors.CommitUnknown: StatusCode.UNAVAILABLE,
    errors.CircuitOpen: StatusCode.UNAVAILABLE,
    # Not UNAVAILABLE: retries are pointless until an operator migrates or upgrades.
    errors.SchemaMismatch: StatusCode.FAILED_PRECONDITION,
    errors.StateCorrupt: StatusCode.DATA_LOSS,
    # The rest is a bug in the server.
    errors.StateError: StatusCode.INTERNAL,
}

_PUSHBACK_MS: Mapping[StatusCode, int] = {
    StatusCode.UNAVAILABLE: 500,  # about what a database's failover or restart needs at the least
    StatusCode.RESOURCE_EXHAUSTED: 100,  # a few times what the saves under way take
}

# A client takes 8 KiB of trailers. Text is percent-encoded there (3 bytes for one), the details
# are base64 (4 for 3) and repeat the text twice: 3 * 512 + (2 * 512 + 2560 + 256 + 300) * 4 / 3
# stays below 7.2 KiB.
_MAX_MESSAGE_BYTES = 512
_MAX_METADATA_BYTES = 2_560
_MAX_VALUE_BYTES = 1_024  # an id of 256 characters of four bytes
_MAX_FIELD_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error in the words of the contract, bounded and free of what gRPC cannot carry.

    Attributes:
        reason: The name of an `ErrorReason` without its prefix.
        field: The path of the field at fault; None when it is not about one.
    """

    code: StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str]
    field: str | None


def failure(error: errors.StateError) -> Failure:
    """Look an error up in the table."""
    metadata = _bounded(error.metadata)
    return Failure(
        code=code_of(type(error)),
        reason=error.reason,
        message=_truncated(printable(error.message), _MAX_MESSAGE_BYTES),
        metadata=metadata,
        field=metadata.get("field"),
    )


def code_of(kind: type[errors.StateError]) -> StatusCode:
    """Find the status code of a kind of error: its own row, or its nearest ancestor's."""
    return next(CODES[base] for base in kind.__mro__ if base in CODES)


def of_batch_item(failed: Failure, index: int) -> Failure:
    """Say of a failure which save of an atomic batch it was; its field becomes the whole path."""
    metadata = {"index": str(index), **failed.metadata}
    if failed.field is None:
        return replace(failed, metadata=metadata)
    field = f"saves[{index}].{failed.field}"
    return replace(failed, metadata={**metadata, "field": field}, field=field)


def batch_save_error(failed: Failure) -> agent_state_service_pb2.BatchSaveError:
    """Write a failure as the answer to one save of a batch."""
    return agent_state_service_pb2.BatchSaveError(
        code=failed.code.value[0],
        reason=failed.reason,
        message=failed.message,
        metadata=failed.metadata,
    )


def trailers(failed: Failure, jitter: Callable[[], float]) -> tuple[tuple[str, str | bytes], ...]:
    """Make the trailing metadata of a failed call.

    `jitter` gives a number from 0 to 1, so that callers that failed together do not return
    together.
    """
    status = status_pb2.Status(code=failed.code.value[0], message=failed.message)
    info = error_details_pb2.ErrorInfo(
        reason=failed.reason, domain=DOMAIN, metadata=failed.metadata
    )
    status.details.add().Pack(info)
    if failed.field is not None and failed.code is StatusCode.INVALID_ARGUMENT:
        status.details.add().Pack(_bad_request(failed.field, failed))
    pushback_ms = _PUSHBACK_MS.get(failed.code)
    if pushback_ms is None:
        return ((DETAILS_TRAILER, status.SerializeToString()),)
    delay_ms = int(pushback_ms * (0.5 + jitter()))
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=delay_ms * 1_000_000))
    status.details.add().Pack(retry)
    return (
        (DETAILS_TRAILER, status.SerializeToString()),
        (PUSHBACK_TRAILER, str(delay_ms)),
    )


def printable(text: str) -> str:
    """Escape what could forge a line of a log or hide in a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _bad_request(field: str, failed: Failure) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=_truncated(field, _MAX_FIELD_BYTES),
        description=failed.message,
        reason=failed.reason,
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """Keep as much as fits, in the order in which the error names its facts."""
    kept: dict[str, str] = {}
    room = _MAX_METADATA_BYTES
    for name, value in metadata.items():
        room -= len(name.encode())
        if room < 0:
            break
        kept[name] = _truncated(value, min(_MAX_VALUE_BYTES, room))
        room -= len(kept[name].encode())
    return kept


def _truncated(text: str, limit_bytes: int) -> str:
    """Cut a text to so many bytes of UTF-8, at a character; lone surrogates become `?`."""
    return text.encode(errors="replace")[:limit_bytes].decode(errors="ignore")
