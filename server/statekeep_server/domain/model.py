"""The values of statekeep: what a caller asks for, what is stored, what is answered.

Times are integers: microseconds since the Unix epoch, UTC, by the database's clock unless said
otherwise. Hashes are the 32 raw bytes of a SHA-256.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from statekeep_server.domain.values import value_class

DEFAULT_TENANT = "default"
"""The tenant of every caller until tenants come from credentials."""

JSON_CONTENT_TYPE = "application/json"


class CheckpointType(StrEnum):
    """Why an agent saves. A save may name a type that is not here; it is then persisted."""

    MANUAL = "MANUAL"
    AUTO = "AUTO"
    RECOVERY = "RECOVERY"
    PHASE_TRANSITION = "PHASE_TRANSITION"
    FULL = "FULL"
    CRITICAL = "CRITICAL"
    INTERMEDIATE = "INTERMEDIATE"
    PIPELINE_COMPLETE = "PIPELINE_COMPLETE"


SKIPPABLE_TYPES: frozenset[str] = frozenset({CheckpointType.AUTO, CheckpointType.INTERMEDIATE})
KNOWN_TYPES: frozenset[str] = frozenset(CheckpointType)


class Outcome(StrEnum):
    """What a save did to the database; BUFFERED is nothing yet."""

    PERSISTED = "PERSISTED"
    SKIPPED = "SKIPPED"
    BUFFERED = "BUFFERED"


class Reason(StrEnum):
    """Why a save is persisted, skipped or buffered (the proto's DecisionReason)."""

    UNCHANGED = "UNCHANGED"
    CHANGED = "CHANGED"
    FIRST_SAVE = "FIRST_SAVE"
    RECOVERY_POINT = "RECOVERY_POINT"
    CHECKPOINT_TYPE = "CHECKPOINT_TYPE"
    UNKNOWN_CHECKPOINT_TYPE = "UNKNOWN_CHECKPOINT_TYPE"
    HEAD_GONE = "HEAD_GONE"
    HEAD_EXPIRES_SOONER = "HEAD_EXPIRES_SOONER"
    MAX_SKIP_AGE = "MAX_SKIP_AGE"
    MAX_SKIPS = "MAX_SKIPS"
    STANDARD_PATH = "STANDARD_PATH"
    WRITE_BEHIND = "WRITE_BEHIND"


class Path(StrEnum):
    """The composition of the service that serves a request."""

    STANDARD = "STANDARD"
    OPTIMIZED = "OPTIMIZED"


class RunKey(NamedTuple):
    """A run of a tenant: the first columns of every table and the unit of ordering.

    A tuple, because it is the key of a dozen dictionaries on the way of a save: a dataclass would
    compute its hash in Python each time.
    """

    tenant: str
    run_id: str


@value_class(kw_only=True)
class SaveCommand:
    """One attempt of one save, as its caller asked for it.

    Attributes:
        state: The payload, stored and returned verbatim.
        checkpoint_type: A `CheckpointType` or any other name; unknown ones are persisted.
        execution_context: Sorted pairs; canonical by construction (see `make_context`).
        request_id: Names the save across its attempts. Never empty past the facade.
        attempt: From 1. Attempts after the first take the locked path.
        expected_version: The head version that the writer has seen; 0 means that no snapshot
            stands.
        ignored_fields: Names and JSON Pointers ignored besides the server's list.
        writer_sequence: Raised by a single writer with every save; lower than the head's is stale.
        write_behind: Whether the save may be answered before it is durable.
    """

    key: RunKey
    state: bytes
    content_type: str = JSON_CONTENT_TYPE
    thread_id: str = ""
    user_id: str = ""
    checkpoint_type: str = CheckpointType.MANUAL
    agent_phase: str = ""
    execution_context: tuple[tuple[str, str], ...] = ()
    is_recovery_point: bool = False
    expires_at_us: int | None = None
    request_id: str = ""
    attempt: int = 1
    expected_version: int | None = None
    ignored_fields: tuple[str, ...] = ()
    writer_sequence: int | None = None
    write_behind: bool = False


def make_context(context: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Make an execution context of a mapping: its pairs sorted by key."""
    return tuple(sorted(context.items()))


@value_class(kw_only=True)
class PreparedSave:
    """A valid save with everything derived from its payload, computed once, before any I/O.

    Attributes:
        state_sha256: Of the stored bytes.
        comparison_hash: Equal for equal states (see `domain.canonical`).
        field_digests: The encoded digests of the top-level fields (see `domain.differ`).
        fingerprint: SHA-256 of the raw bytes and all options except `attempt` and `write_behind`:
            tells a retry from a request id used for another save.
    """

    command: SaveCommand
    state_sha256: bytes
    comparison_hash: bytes
    field_digests: bytes
    fingerprint: bytes


@value_class(kw_only=True)
class Head:
    """The one row per run that says what stands. It moves with every write of the run.

    Attributes:
        version: Of the newest write, a deletion included; 0 for a run that has none.
        snapshot_id: The snapshot that stands; None after it was deleted or swept.
        comparison_hash: None never matches anything.
        audit_hash: The last link of the run's audit chain.
        persisted_at_us: When the head moved last.
        expires_at_us: When the standing snapshot expires; None for never.
        writer_sequence: The highest that a writer gave; None when none did.
    """

    key: RunKey
    version: int
    snapshot_id: str | None
    comparison_hash: bytes | None
    state_sha256: bytes | None
    field_digests: bytes
    audit_hash: bytes
    persisted_at_us: int
    expires_at_us: int | None
    writer_sequence: int | None


@value_class()
class Would:
    """What the optimized path would have made of a save that standard persisted.

    Attributes:
        reason: UNCHANGED means skipped.
        persisted_at_us: Of the snapshot that would then stand, by the database's clock.
    """

    reason: Reason
    persisted_at_us: int


@value_class(kw_only=True)
class SaveResult:
    """What became of a save; also what a request id remembers.

    Attributes:
        snapshot_id: Of the snapshot that holds the state: new, or the one that stands; empty, and
            the version 0, for a save that is buffered.
        state_sha256: Of the bytes in that snapshot.
        changed_fields: Sorted names of the top-level fields that differ from the head before.
        replayed: Whether this is the recorded result of an earlier attempt.
        would: Only in shadow mode; never stored.
    """

    outcome: Outcome
    reason: Reason
    snapshot_id: str
    version: int
    state_sha256: bytes
    comparison_hash: bytes
    changed_fields: tuple[str, ...]
    changed_fields_truncated: bool
    request_id: str
    replayed: bool = False
    would: Would | None = None


@value_class(kw_only=True)
class Snapshot:
    """A stored state, described. `state` is None in listings."""

    key: RunKey
    snapshot_id: str
    version: int
    thread_id: str
    user_id: str
    checkpoint_type: str
    agent_phase: str
    execution_context: tuple[tuple[str, str], ...]
    is_recovery_point: bool
    persisted_at_us: int
    expires_at_us: int | None
    content_type: str
    state_bytes: int
    state_sha256: bytes
    comparison_hash: bytes
    state: bytes | None = None


@value_class(kw_only=True)
class LoadedState:
    """A snapshot with its state, and the head's version now (for the next `expected_version`)."""

    snapshot: Snapshot
    head_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has not been deleted, described by its newest write."""

    key: RunKey
    thread_id: str
    user_id: str
    version: int
    snapshot_id: str | None
    persisted_at_us: int


@dataclass(frozen=True, slots=True)
class Newest:
    """Selects the newest live snapshot of a run."""


@dataclass(frozen=True, slots=True)
class ByVersion:
    """Selects a snapshot by its version."""

    version: int


@dataclass(frozen=True, slots=True)
class ById:
    """Selects a snapshot of the run by its id."""

    snapshot_id: str


Selector = Newest | ByVersion | ById
