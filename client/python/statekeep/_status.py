"""From a failed gRPC call to an error by meaning.

A statekeep server attaches a `google.rpc.ErrorInfo` to every failure, in the trailer
`grpc-status-details-bin`; its reason decides. Without one the failure came from gRPC itself or
from something between client and server, and the status code has to do.
"""

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from statekeep._errors import (
    CommitUnknown,
    DataLoss,
    DeadlineExceeded,
    FlagConflict,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    RequestIdReused,
    SchemaMismatch,
    ServerNotFound,
    StaleWriter,
    StatekeepError,
    Unauthenticated,
    Unavailable,
    VersionConflict,
)
from statekeep.v1 import agent_state_service_pb2

DOMAIN = "statekeep.v1"
DETAILS_KEY = "grpc-status-details-bin"

BY_REASON: dict[str, type[StatekeepError]] = {
    "INVALID_FIELD": InvalidRequest,
    "STATE_TOO_LARGE": InvalidRequest,
    "STATE_NOT_JSON": InvalidRequest,
    "STATE_DUPLICATE_KEY": InvalidRequest,
    "STATE_TOO_DEEP": InvalidRequest,
    "STATE_INTEGER_TOO_LONG": InvalidRequest,
    "STATE_TOO_MANY_MEMBERS": InvalidRequest,
    "REQUEST_ID_REUSED": RequestIdReused,
    "VERSION_CONFLICT": VersionConflict,
    "STALE_WRITER": StaleWriter,
    "FLAG_CONFLICT": FlagConflict,
    "RUN_NOT_FOUND": NotFound,
    "SNAPSHOT_NOT_FOUND": NotFound,
    "STATE_CORRUPT": DataLoss,
    "OVERLOADED": Overloaded,
    "SHUTTING_DOWN": Unavailable,
    "STORAGE_UNAVAILABLE": Unavailable,
    "COMMIT_UNKNOWN": CommitUnknown,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAUTHENTICATED": Unauthenticated,
    "SCHEMA_MISMATCH": SchemaMismatch,
    "INTERNAL": Internal,
}

# For reasons of newer servers, and for failures that no statekeep server described.
BY_CODE: dict[grpc.StatusCode, type[StatekeepError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.INTERNAL: Internal,
}

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# What gRPC's core says when no connection could be made. Its texts are no contract: a text that
# is not recognised still gives Unavailable, only without the hint.
_NOBODY = ("connection refused", "failed to connect to remote", "dns resolution", "no such file")
_NO_CONNECTION = ("failed to connect", "handshake", "certificate")
_TOO_LARGE = "larger than max"


def error_of_call(
    failure: grpc.RpcError, *, target: str, timeout_s: float, request_id: str = ""
) -> StatekeepError:
    """Say what a failed call means."""
    code = failure.code()
    # The stubs type the two clients' metadata differently; both are pairs, or None.
    trailers = cast("Iterable[tuple[str, str | bytes]] | None", failure.trailing_metadata())
    info, retry_after_s = _details(trailers or ())
    message = failure.details() or code.name
    if info is not None:
        kind = BY_REASON.get(info.reason) or BY_CODE.get(code, StatekeepError)
        return kind(
            message,
            code=code,
            reason=info.reason,
            metadata=dict(info.metadata),
            request_id=request_id,
            retry_after_s=retry_after_s,
        )
    kind, message = _described_by_grpc(code, message, target, timeout_s)
    return kind(message, code=code, request_id=request_id, retry_after_s=retry_after_s)


def error_of_item(
    error: agent_state_service_pb2.BatchSaveError, *, request_id: str
) -> StatekeepError:
    """Say what the failure of one save of a batch means."""
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    kind = BY_REASON.get(error.reason) or BY_CODE.get(code, StatekeepError)
    return kind(
        error.message,
        code=code,
        reason=error.reason,
        metadata=dict(error.metadata),
        request_id=request_id,
    )


def _details(
    trailers: Iterable[tuple[str, str | bytes]],
) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    """Read ErrorInfo and RetryInfo. Details that cannot be read are as good as none."""
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_s: float | None = None
    for key, value in trailers:
        if key != DETAILS_KEY or isinstance(value, str):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
            for detail in details:
                found = error_details_pb2.ErrorInfo()
                retry = error_details_pb2.RetryInfo()
                if detail.Unpack(found) and found.domain == DOMAIN:
                    info = found
                elif detail.Unpack(retry):
                    retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        except DecodeError:
            continue
    return info, retry_after_s


def _described_by_grpc(
    code: grpc.StatusCode, message: str, target: str, timeout_s: float
) -> tuple[type[StatekeepError], str]:
    """Choose the error and the words for a failure that no statekeep server described."""
    said = message.lower()
    if code is grpc.StatusCode.UNAVAILABLE and any(text in said for text in _NOBODY):
        hint = "start one with `statekeep serve`, or set STATEKEEP_TARGET"
        why = message.rpartition(": ")[2]  # gRPC names each address and layer before it
        return ServerNotFound, f"no server at {target}: {hint} ({why})"
    if code is grpc.StatusCode.UNAVAILABLE and any(text in said for text in _NO_CONNECTION):
        hint = "do both sides use TLS, and does the certificate fit the name?"
        return Unavailable, f"{target} broke off the connection: {hint} ({message})"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return StatekeepError, f"{target} does not know this call: is it a statekeep server?"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded, f"no answer from {target} within {timeout_s:g} s"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in said:
        return InvalidRequest, f"a message is larger than the other side takes ({message})"
    return BY_CODE.get(code, StatekeepError), message
