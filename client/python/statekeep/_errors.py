"""The errors of the client, by what they mean to a caller.

    StatekeepError
    ├── Refused                 nothing was written
    │   ├── InvalidRequest      the request is at fault: mend it
    │   ├── RequestIdReused     the request id was used for another save: a bug in the caller
    │   ├── VersionConflict     somebody else saved: load, and decide again
    │   ├── FlagConflict        somebody else changed the flag: look, and decide again
    │   ├── StaleWriter         a newer writer took over: stop
    │   └── NotFound            no such run or snapshot
    ├── Unauthenticated         the token is missing or wrong
    ├── Overloaded              the server has too much to do: wait `retry_after_s`
    ├── Unavailable             the server or its database cannot serve this now: retry
    │   ├── ServerNotFound      nothing listens at the target
    │   └── CommitUnknown       the save may have happened: retry with the same request id
    ├── DeadlineExceeded        no answer in time: retry with the same request id
    ├── SchemaMismatch          the server and its database do not fit: an operator must act
    ├── DataLoss                the stored bytes are damaged
    └── Internal                a bug, most likely in the server

Every error of a save carries its `request_id`. Saving again with that id is the same save and
happens once, whatever became of the first attempt.
"""

from collections.abc import Mapping
from typing import Any, Self

import grpc


class StatekeepError(Exception):
    """A call failed.

    Attributes:
        message: One sentence for a person.
        code: The gRPC status.
        reason: The name of the contract's `ErrorReason`, without its prefix; empty when the
            failure did not come from a statekeep server.
        metadata: Facts for a program, for example `field` and `limit`.
        request_id: Of the save that failed; empty for other calls.
        retry_after_s: How long the server asks to wait before the next attempt, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders in task queues; keyword arguments need help there.
        return _rebuild, (type(self), self.message, {**vars(self), "message": None})

    @property
    def outcome_unknown(self) -> bool:
        """Whether a save may have happened all the same. Only a refusal rules it out.

        gRPC may have tried several times, and the answer of the last attempt says nothing of the
        first: one that was committed and whose answer was lost can end as any failure.
        """
        return True

    def number(self, name: str) -> int | None:
        """Read a number of the metadata; None if there is none."""
        text = self.metadata.get(name, "")
        return int(text) if text.removeprefix("-").isdecimal() else None


def _rebuild(
    kind: type[StatekeepError], message: str, attributes: Mapping[str, Any]
) -> StatekeepError:
    error = kind(message)
    vars(error).update({**attributes, "message": message})
    return error


class Refused(StatekeepError):
    """The server looked at the request and refused it. Nothing was written."""

    @property
    def outcome_unknown(self) -> bool:
        """Never: an earlier attempt that was committed would have been answered instead."""
        return False


class InvalidRequest(Refused):
    """The request is at fault. `reason` says how, for example `STATE_TOO_LARGE`."""

    @classmethod
    def of_field(
        cls, field: str, message: str, *, reason: str = "INVALID_FIELD", **metadata: object
    ) -> Self:
        """Refuse a field before anything is sent."""
        return cls(
            f"{field}: {message}",
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason=reason,
            metadata={"field": field, **{name: str(value) for name, value in metadata.items()}},
        )

    @property
    def field(self) -> str:
        """The field at fault, for example `run_id`; empty when it is not known."""
        return self.metadata.get("field", "")

    @property
    def limit(self) -> int | None:
        """The limit that the field is over, if it is one of limits."""
        return self.number("limit")


class RequestIdReused(Refused):
    """The request id was used before for another save of this run."""


class VersionConflict(Refused):
    """The run's head is not the one that the save expected."""

    @property
    def expected(self) -> int | None:
        """The version that the save expected."""
        return self.number("expected_version")

    @property
    def actual(self) -> int | None:
        """The version of the run's head."""
        return self.number("actual_version")


class FlagConflict(Refused):
    """The flag is not at the version that the change expected."""


class StaleWriter(Refused):
    """The run's head was written with a higher writer sequence."""


class NotFound(Refused):
    """The run has no live snapshot, or not the one that was asked for."""


class Unauthenticated(StatekeepError):
    """The call carries no token, or a wrong one."""


class Overloaded(StatekeepError):
    """The server has too much to do. `retry_after_s` says how long to wait."""


class Unavailable(StatekeepError):
    """The server, or its database, cannot serve this now."""


class ServerNotFound(Unavailable):
    """Nothing listens at the target."""


class CommitUnknown(Unavailable):
    """The database's connection broke during a commit: the save may have happened."""


class DeadlineExceeded(StatekeepError):
    """No answer came in time."""


class SchemaMismatch(StatekeepError):
    """The database's schema is not the one that the server knows."""


class DataLoss(StatekeepError):
    """The stored bytes do not match their SHA-256."""


class Internal(StatekeepError):
    """Something broke that should not. The server's log says what, under the same trace id."""
