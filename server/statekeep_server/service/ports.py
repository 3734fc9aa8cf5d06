"""What the service needs from the outside: a store, a head cache, a clock.

Every method states its error contract; a `StateError` of `domain.errors` is the only kind that an
implementation may raise on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import (
    Head,
    LoadedState,
    PreparedSave,
    Run,
    RunKey,
    SaveResult,
    Selector,
    Snapshot,
)
from statekeep_server.domain.policy import ShadowRules, SkipRules
from statekeep_server.domain.transition import RecordedResult
from statekeep_server.domain.values import value_class
from statekeep_server.flags import FlagChange, FlagName, Scope, StoredFlags


@value_class()
class Probe:
    """Asks the barrier for the head of a run and an earlier result of a request."""

    key: RunKey
    request_id: str


@value_class(kw_only=True)
class Standing:
    """What the barrier saw: all of it committed, at one moment after the request arrived.

    Attributes:
        head: None when the run was never written.
        earlier: What the request id remembers; None when nothing.
        now_us: The database's clock at that moment.
    """

    head: Head | None
    earlier: RecordedResult | None
    now_us: int


@value_class(kw_only=True)
class Append:
    """One save to be decided and, unless skipped, written, under the lock of its head.

    Attributes:
        rules: When to skip; None on the standard path, which persists every save.
        skips_in_a_row: How often this server skipped the run since it was last persisted.
        shadow: What else is to be decided where the save is persisted, and told beside the answer.
    """

    save: PreparedSave
    rules: SkipRules | None
    skips_in_a_row: int = 0
    shadow: ShadowRules | None = None


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """Snapshots, newest first; `next_before_version` continues, None on the last page."""

    snapshots: tuple[Snapshot, ...]
    next_before_version: int | None


@dataclass(frozen=True, slots=True)
class RunCursor:
    """A position in the list of runs: the last run of the page before."""

    persisted_at_us: int
    run_id: str


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs, newest write first; `next_after` continues, None on the last page."""

    runs: tuple[Run, ...]
    next_after: RunCursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A connection pool as it is now."""

    pool_size: int
    max_overflow: int
    pool_timeout_s: float
    checked_out: int
    idle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatistics:
    """What a store did since it was opened.

    Attributes:
        rows_written: Rows inserted, updated or deleted by committed transactions.
        statements: Statements sent, those that begin and end transactions included.
        pool: None where there is no pool to be tuned.
    """

    rows_written: int
    statements: int
    pool: PoolStatistics | None


class StateStore(Protocol):
    """Keeps snapshots, heads, audit records and request results.

    Every method may raise StorageUnavailable, and those that write CommitUnknown. No method
    survives cancellation half done: a transaction is committed whole or not at all, and callers
    that must not lose an outcome run the method in a task of its own.
    """

    async def barrier(self, probes: Sequence[Probe]) -> Sequence[Standing]:
        """Read the heads and earlier results of many saves in one READ COMMITTED statement.

        The i-th answer is that of the i-th probe. Nothing is locked and nothing is written.
        """
        ...

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        """Decide and write many saves in one transaction, and answer after its commit.

        For each, in order, under the lock of its head: an earlier result of the request id with
        the same fingerprint is returned again, with another it is RequestIdReused; then
        `writer_sequence` (StaleWriter) and `expected_version` (VersionConflict) are checked; then
        `policy.decide` is asked with the head as it stands, saves before it in this call
        included. A persisted save inserts a snapshot, an audit record and its request result, and
        moves the head. A skipped attempt after the first records its result; other skips write
        nothing.

        The i-th answer is the result, or the `Refused` error, of the i-th save. When `atomic`,
        the first error rolls everything back and raises AtomicBatchFailed. A failure of the
        database raises for all, and nothing of the call is committed (CommitUnknown aside); a
        store that takes more than one transaction answers the saves of one that failed with its
        error. All saves of a run share a transaction.
        """
        ...

    async def append_in_session(self, session: object, append: Append) -> SaveResult:
        """Decide and write one save on a caller's own session, under a savepoint.

        `session` is an SQLAlchemy AsyncSession or AsyncConnection on this store's database. The
        save is staged: durable when the caller commits, gone when it rolls back. Raises what the
        save would have answered; StorageUnavailable with cause LOCKED when another writer holds
        the run.
        """
        ...

    async def load(self, key: RunKey, selector: Selector) -> LoadedState:
        """Read one live snapshot with its state.

        Raises RunNotFound (Newest) or SnapshotNotFound where there is none, it has expired, or
        it belongs to another run or tenant; StateCorrupt where the bytes do not match.
        """
        ...

    async def load_newest(self, keys: Sequence[RunKey]) -> Sequence[LoadedState | StateError]:
        """Read the newest live snapshots of many runs with their states.

        The i-th answer is that of the i-th key: what `load` would return or raise, read after
        this was called.
        """
        ...

    async def load_in_session(
        self, session: object, key: RunKey, selector: Selector
    ) -> LoadedState:
        """Read like `load` on a caller's own session, which sees what it has staged."""
        ...

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        """List live snapshots of a run, newest first, without their states."""
        ...

    async def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None = None,
        user_id: str | None = None,
        after: RunCursor | None = None,
    ) -> RunPage:
        """List runs that have a head and are not deleted, newest write first."""
        ...

    async def delete_run(self, key: RunKey) -> int:
        """Delete the snapshots and request results of a run; return how many snapshots.

        The head stays as a tombstone with the next version, no snapshot and no hash, and the
        audit log gets a record. A run that is unknown or already deleted is left alone: 0.
        """
        ...

    async def sweep(self, *, limit: int, request_results_before_us: int) -> int:
        """Delete up to `limit` expired snapshots and old request results; return how many rows.

        A head whose snapshot goes loses its snapshot id and hash in the same transaction. Results
        are old when they were recorded in a minute before that of `request_results_before_us`.
        """
        ...

    async def check(self) -> None:
        """Raise unless the database can be reached, can be written and has the right schema."""
        ...

    def statistics(self) -> StoreStatistics:
        """Count what this store did."""
        ...


class FlagStore(Protocol):
    """Keeps the flags of the fleet and the history of their changes.

    Every method may raise StorageUnavailable, and those that write CommitUnknown. Changes happen
    one after the other: each is decided with all before it in sight, and the last one stands.
    """

    async def version(self) -> int:
        """Read the version of the newest change; 0 before the first."""
        ...

    async def read(self) -> StoredFlags:
        """Read all that is set."""
        ...

    async def change(
        self,
        name: FlagName,
        scope: Scope,
        value: str | None,
        *,
        changed_by: str,
        expected_version: int | None = None,
    ) -> FlagChange:
        """Set a flag, or unset it with None; answer after the commit with its line of history.

        `value` is normalized. Unsetting what is not set is a change too. Raises FlagConflict
        unless the flag has the `expected_version`, which is 0 for one that is not set, and
        InvalidField for a new flag of a tenant or a run where MAX_OVERRIDES are set already.
        """
        ...

    async def changes(
        self, *, limit: int, before_version: int | None = None
    ) -> Sequence[FlagChange]:
        """Read the history, newest first, of versions below `before_version`."""
        ...


MAX_OVERRIDES = 1_000
"""Flags of tenants and runs. Every server holds all of them; a percentage serves more runs."""


@value_class()
class CachedHead:
    """What a server remembers of a head: enough to choose a route."""

    version: int
    comparison_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """What a head cache holds and did."""

    entries: int
    max_entries: int
    size_bytes: int
    max_size_bytes: int
    hits: int
    misses: int
    evictions: int
    invalidations: int


class HeadCache(Protocol):
    """Remembers heads as a hint. A wrong, missing or stale entry costs time, never truth.

    Methods may raise anything; the facade then falls back.
    """

    async def get(self, key: RunKey) -> CachedHead | None:
        """Look a head up."""
        ...

    async def put(self, key: RunKey, head: CachedHead) -> None:
        """Remember a head known from a committed transaction, unless a newer one is known."""
        ...

    async def invalidate(self, key: RunKey) -> None:
        """Forget a head, before every write of its run."""
        ...

    def statistics(self) -> CacheStatistics:
        """Count what the cache holds and did."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back, for durations."""
        ...

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, by this machine's clock."""
        ...
