"""Every error of statekeep, each with a stable reason, facts for a program and a sentence.

    StateError
    ├── Refused                 the request itself is at fault: no retry and no fallback helps
    │   ├── InvalidField
    │   │   ├── StateTooLarge  StateNotJson  DuplicateKey  TooDeep  IntegerTooLong  TooManyMembers
    │   ├── RequestIdReused  VersionConflict  StaleWriter  FlagConflict
    │   ├── RunNotFound  SnapshotNotFound  Unauthenticated
    │   ├── Overloaded          a fallback would only add to the load
    │   ├── ShuttingDown        another server takes what this one no longer begins
    │   └── DeadlineExceeded
    └── Failed                  the system is at fault: the optimized path falls back
        ├── StorageUnavailable
        │   └── CommitUnknown
        ├── SchemaMismatch  CircuitOpen  StateCorrupt

Nothing of a state, a token or a connection string may enter a message or the metadata.
"""

from collections.abc import Mapping
from typing import ClassVar, Self


class StateError(Exception):
    """Something went wrong.

    Attributes:
        reason: The name of the proto's ErrorReason, without its prefix.
        metadata: Facts for a program; the keys are those shown in error_reason.proto.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None, **metadata: object) -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])
        self.metadata: Mapping[str, str] = {name: str(value) for name, value in metadata.items()}

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0])

    def extended(self, message: str | None = None, **metadata: object) -> Self:
        """Make the same error with another message or more metadata.

        A copy: one failure of a group is the answer of each of its saves, and each says its own.
        """
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.args = (message or self.message,)
        copy.metadata = {**self.metadata, **{name: str(value) for name, value in metadata.items()}}
        copy.__cause__ = self.__cause__
        return copy.with_traceback(self.__traceback__)


class Refused(StateError):
    """The request was refused."""


class Failed(StateError):
    """The system could not do what was asked."""


class InvalidField(Refused):
    """A field of the request is missing or malformed."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str, **metadata: object) -> None:
        super().__init__(f"{field}: {message}", field=field, **metadata)
        self.field = field


class StateTooLarge(InvalidField):
    """The state is larger than the server takes."""

    reason = "STATE_TOO_LARGE"


class StateNotJson(InvalidField):
    """The state is said to be JSON and is not."""

    reason = "STATE_NOT_JSON"


class DuplicateKey(InvalidField):
    """An object of the state names a field twice."""

    reason = "STATE_DUPLICATE_KEY"


class TooDeep(InvalidField):
    """The state is nested too deeply."""

    reason = "STATE_TOO_DEEP"


class IntegerTooLong(InvalidField):
    """An integer of the state has too many digits."""

    reason = "STATE_INTEGER_TOO_LONG"


class TooManyMembers(InvalidField):
    """The objects of the state have too many members."""

    reason = "STATE_TOO_MANY_MEMBERS"


class RequestIdReused(Refused):
    """The request id was used before for another save of this run."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id: {request_id!r} was used before for another save of this run",
            field="request_id",
            request_id=request_id,
        )


class VersionConflict(Refused):
    """The run's head is not the one that the save expected."""

    reason = "VERSION_CONFLICT"

    def __init__(self, expected_version: int, actual_version: int) -> None:
        super().__init__(
            f"expected version {expected_version}, but the run is at version {actual_version}",
            expected_version=expected_version,
            actual_version=actual_version,
        )
        self.expected_version = expected_version
        self.actual_version = actual_version


class FlagConflict(Refused):
    """The flag is not as the change expected it: somebody else changed it."""

    reason = "FLAG_CONFLICT"

    def __init__(self, name: str, expected_version: int, actual_version: int) -> None:
        super().__init__(
            f"expected version {expected_version} of {name}, but it is at version {actual_version}",
            name=name,
            expected_version=expected_version,
            actual_version=actual_version,
        )


class StaleWriter(Refused):
    """The run's head was written with a higher writer sequence."""

    reason = "STALE_WRITER"

    def __init__(self, writer_sequence: int, actual_writer_sequence: int) -> None:
        super().__init__(
            f"writer sequence {writer_sequence} is older than the run's {actual_writer_sequence}",
            writer_sequence=writer_sequence,
            actual_writer_sequence=actual_writer_sequence,
        )


class RunNotFound(Refused):
    """The run has no live snapshot."""

    reason = "RUN_NOT_FOUND"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} has no live snapshot", run_id=run_id)


class SnapshotNotFound(Refused):
    """The run has no live snapshot with that version or id."""

    reason = "SNAPSHOT_NOT_FOUND"

    def __init__(self, run_id: str, **selector: object) -> None:
        named = ", ".join(f"{name} {value}" for name, value in selector.items())
        message = f"run {run_id!r} has no live snapshot with {named}"
        super().__init__(message, run_id=run_id, **selector)


class Unauthenticated(Refused):
    """The call carries no token, or a wrong one."""

    reason = "UNAUTHENTICATED"


class Overloaded(Refused):
    """The server has too much to do; try again later."""

    reason = "OVERLOADED"


class ShuttingDown(Refused):
    """The server is stopping and begins nothing more for this call."""

    reason = "SHUTTING_DOWN"


class DeadlineExceeded(Refused):
    """The deadline passed before the save was sent to the database."""

    reason = "DEADLINE_EXCEEDED"


class StorageUnavailable(Failed):
    """The database cannot serve this now.

    `cause` is one of UNREACHABLE, LOCKED, READ_ONLY, FULL, POOL_TIMEOUT, TIMEOUT, OTHER.
    """

    reason = "STORAGE_UNAVAILABLE"

    def __init__(self, cause: str, message: str | None = None) -> None:
        super().__init__(message or f"the database cannot serve this now ({cause})", cause=cause)
        self.cause = cause


class CommitUnknown(StorageUnavailable):
    """The connection broke during a commit: retry with the same request id."""

    reason = "COMMIT_UNKNOWN"

    def __init__(self) -> None:
        super().__init__(
            "UNREACHABLE",
            "the connection broke during a commit, the save may have happened: "
            "retry with the same request id",
        )


class SchemaMismatch(Failed):
    """The database's schema is not the one that this server knows."""

    reason = "SCHEMA_MISMATCH"

    def __init__(self, found: str | None, expected: str) -> None:
        super().__init__(
            f"the database's schema is at {found or 'nothing'}, this server needs {expected}: "
            + ("run `statekeep migrate`" if not found or found < expected else "upgrade statekeep"),
            found=found or "",
            expected=expected,
        )


class CircuitOpen(Failed):
    """The optimized path failed repeatedly and rests."""

    reason = "CIRCUIT_OPEN"


class StateCorrupt(Failed):
    """The stored bytes do not match their SHA-256."""

    reason = "STATE_CORRUPT"

    def __init__(self, run_id: str, snapshot_id: str) -> None:
        super().__init__(
            f"snapshot {snapshot_id} of run {run_id!r} does not match its SHA-256",
            run_id=run_id,
            snapshot_id=snapshot_id,
        )


class AtomicBatchFailed(Exception):
    """An atomic batch was rolled back because of one of its items.

    Attributes:
        index: The position of that item.
        error: Why it failed.
    """

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(f"save {index} of an atomic batch failed: {error}")
        self.index = index
        self.error = error
