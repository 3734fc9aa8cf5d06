"""The words and values of the client: what a save carries and what the server answers.

Every value is frozen. Times are aware `datetime`s in UTC, hashes the 32 raw bytes of a SHA-256.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar

from statekeep._ids import new_request_id

T = TypeVar("T")

_UNKNOWN = re.compile(r"UNKNOWN_-?[0-9]+")


class _OpenEnum(StrEnum):
    """Words that a newer server may have more of: the number n then reads `UNKNOWN_n`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not _UNKNOWN.fullmatch(value):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member

    def __reduce_ex__(self, protocol: object) -> tuple[type[Self], tuple[str]]:
        # Early releases of Python 3.11 pickle a member by its name, and an unknown one has none.
        return type(self), (self.value,)


class CheckpointType(_OpenEnum):
    """Why an agent saves. Only AUTO and INTERMEDIATE may be skipped when nothing changed."""

    MANUAL = "MANUAL"
    AUTO = "AUTO"
    RECOVERY = "RECOVERY"
    PHASE_TRANSITION = "PHASE_TRANSITION"
    FULL = "FULL"
    CRITICAL = "CRITICAL"
    INTERMEDIATE = "INTERMEDIATE"
    PIPELINE_COMPLETE = "PIPELINE_COMPLETE"


CheckpointTypeName = Literal[
    "MANUAL",
    "AUTO",
    "RECOVERY",
    "PHASE_TRANSITION",
    "FULL",
    "CRITICAL",
    "INTERMEDIATE",
    "PIPELINE_COMPLETE",
]


class SaveOutcome(_OpenEnum):
    """What a save did to the database; BUFFERED is nothing yet."""

    PERSISTED = "PERSISTED"
    SKIPPED = "SKIPPED"
    BUFFERED = "BUFFERED"


class DecisionReason(_OpenEnum):
    """Why a save was persisted, skipped or buffered."""

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


class ServingPath(_OpenEnum):
    """The composition of the service that answered."""

    STANDARD = "STANDARD"
    OPTIMIZED = "OPTIMIZED"


@dataclass(frozen=True, slots=True)
class Save:
    """One save of a batch: the arguments of `save` as a value.

    Its `request_id` is made when the value is: giving the same value to the server again, with a
    higher `attempt`, is the same save and happens once.
    """

    run_id: str
    state: Any = field(repr=False)
    _: KW_ONLY
    checkpoint_type: CheckpointType | CheckpointTypeName = CheckpointType.MANUAL
    thread_id: str = ""
    user_id: str = ""
    agent_phase: str = ""
    execution_context: Mapping[str, str] = field(default_factory=dict)
    is_recovery_point: bool = False
    expires_at: datetime | timedelta | None = None
    request_id: str = field(default_factory=new_request_id)
    attempt: int = 1
    expected_version: int | None = None
    ignored_fields: Sequence[str] = ()
    writer_sequence: int | None = None
    content_type: str = ""
    write_behind: bool = False


class SaveOptions(TypedDict, total=False):
    """What a save may say besides its run and its state: the fields of `Save` by their names."""

    checkpoint_type: CheckpointType | CheckpointTypeName
    thread_id: str
    user_id: str
    agent_phase: str
    execution_context: Mapping[str, str]
    is_recovery_point: bool
    expires_at: datetime | timedelta | None
    request_id: str
    attempt: int
    expected_version: int | None
    ignored_fields: Sequence[str]
    writer_sequence: int | None
    content_type: str
    write_behind: bool


@dataclass(frozen=True, slots=True)
class FallbackCause:
    """Why the optimized path could not serve a save that the standard path then did."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveResult:
    """What became of a save. It is durable, whether it was persisted or skipped.

    Only a save with `write_behind` may be BUFFERED: that one is not durable yet.

    Attributes:
        snapshot_id: Of the snapshot that holds the state: the new one, or the one that stands;
            empty for a save that was buffered.
        version: Of that snapshot; what the next save may give as `expected_version`. None for a
            save that was buffered.
        state_sha256: Of the bytes in that snapshot.
        comparison_hash: By which states of the run are compared.
        changed_fields: Sorted names of the top-level fields that differ from the head before.
        changed_fields_truncated: Whether names are left out of `changed_fields`.
        fallback_cause: Set when the standard path stepped in for the optimized one.
        replayed: Whether this is the recorded answer of an earlier attempt.
    """

    outcome: SaveOutcome
    snapshot_id: str
    version: int | None
    state_sha256: bytes
    comparison_hash: bytes
    changed_fields: tuple[str, ...]
    changed_fields_truncated: bool
    reason: DecisionReason
    path: ServingPath
    fallback_cause: FallbackCause | None
    request_id: str
    replayed: bool

    @property
    def persisted(self) -> bool:
        """Whether a snapshot was written."""
        return self.outcome is SaveOutcome.PERSISTED

    @property
    def skipped(self) -> bool:
        """Whether the newest snapshot already held the state, so that nothing was written."""
        return self.outcome is SaveOutcome.SKIPPED

    @property
    def buffered(self) -> bool:
        """Whether the server holds the state in memory and writes it a moment later."""
        return self.outcome is SaveOutcome.BUFFERED


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMetadata:
    """A stored state, described without its payload.

    Attributes:
        persisted_at: By the database's clock.
        expires_at: When the snapshot stops being returned; None for never.
        state_bytes: The size of the state.
    """

    run_id: str
    snapshot_id: str
    version: int
    thread_id: str
    user_id: str
    checkpoint_type: CheckpointType
    agent_phase: str
    execution_context: Mapping[str, str]
    is_recovery_point: bool
    persisted_at: datetime
    expires_at: datetime | None
    content_type: str
    state_bytes: int
    state_sha256: bytes
    comparison_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedState(Generic[T]):
    """A snapshot with its state.

    Attributes:
        state: The decoded JSON value, or the model that `as_` named, or the bytes themselves when
            the content type is not JSON.
        data: The bytes as they were saved.
        head_version: Of the run's head now: what the next save gives as `expected_version`.
        snapshot: Everything else that is known of the snapshot.
    """

    state: T
    data: bytes = field(repr=False)
    head_version: int
    snapshot: SnapshotMetadata

    @property
    def version(self) -> int:
        """The version of the loaded snapshot, which is the head's unless an older one was asked."""
        return self.snapshot.version

    @property
    def snapshot_id(self) -> str:
        """The id of the loaded snapshot."""
        return self.snapshot.snapshot_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetadata:
    """A run, described by its newest write.

    Attributes:
        snapshot_id: Of the snapshot that stands as the head; empty when it has expired.
        persisted_at: When the head was written, by the database's clock.
    """

    run_id: str
    thread_id: str
    user_id: str
    version: int
    snapshot_id: str
    persisted_at: datetime
