"""What a server says about itself: its version, limits, rules and counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from statekeep._types import ServingPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the server accepts, each a maximum."""

    max_state_bytes: int
    max_large_state_bytes: int
    max_message_bytes: int
    max_batch_items: int
    max_depth: int
    max_integer_digits: int
    max_members: int
    max_id_characters: int
    max_context_entries: int
    max_context_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipRules:
    """When the server skips an automatic save.

    Attributes:
        ignored_fields: The fields that are ignored in every comparison.
        max_skip_age_s: After so long an unchanged state is persisted again.
        max_skips: After so many in a row, per run and server, likewise.
    """

    canonical_version: int
    ignored_fields: tuple[str, ...]
    max_skip_age_s: float
    max_skips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A connection pool as it is now."""

    path: ServingPath
    pool_size: int
    max_overflow: int
    pool_timeout_s: float
    checked_out: int
    idle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What the server is.

    Attributes:
        path: The path that new saves take.
        database: `sqlite` or `postgresql`.
        pools: One per path; none for SQLite.
    """

    version: str
    path: ServingPath
    database: str
    limits: Limits
    skip_rules: SkipRules
    pools: tuple[PoolStats, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStats:
    """The saves of one path since the server started.

    Attributes:
        decisions: Acknowledged saves by the name of their `DecisionReason`.
        failures: Failed saves by the reason of their error.
        fallbacks: Saves that left this path, by the reason of the first error.
        persisted_mean_s, skipped_mean_s: Mean durations in seconds; 0.0 before the first.
    """

    path: ServingPath
    saves: int
    persisted: int
    skipped: int
    decisions: Mapping[str, int]
    failures: Mapping[str, int]
    fallbacks: Mapping[str, int]
    rows_written: int
    statements: int
    persisted_mean_s: float
    skipped_mean_s: float
    loads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """The head cache, which chooses the route of a save and never its answer."""

    entries: int
    max_entries: int
    size_bytes: int
    max_size_bytes: int
    hits: int
    misses: int
    evictions: int
    invalidations: int
    routes_right: int
    routes_wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """A histogram of durations.

    Attributes:
        sum_squares: Of the durations in seconds, for their variance.
        buckets: How many by the lower bound of their bucket in microseconds. A bucket is one
            microsecond wide below 64; above, every doubling has 32 of equal width.
    """

    count: int
    sum_s: float
    sum_squares: float
    buckets: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStats:
    """The saves for which the flags chose one path, since the rollout last changed.

    Attributes:
        saves, skipped, rows_written, statements: Of the path, batches included.
        failures: Single saves that failed, by the reason of their error.
        fallbacks: Single saves that standard had to serve.
        persisted_durations, skipped_durations: Of single saves, a fallback included.
    """

    path: ServingPath
    saves: int
    skipped: int
    rows_written: int
    statements: int
    failures: Mapping[str, int]
    fallbacks: int
    persisted_durations: Durations
    skipped_durations: Durations


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStats:
    """What the optimized path would have made of saves that standard persisted in shadow mode.

    Attributes:
        would_persist: By the name of the `DecisionReason`.
        disagreements: Saves that would have been skipped although their fields had changed.
        rows_avoided: Rows that would not have been written.
        routes_right, routes_wrong: As the head cache would have chosen them.
    """

    would_skip: int
    would_persist: Mapping[str, int]
    disagreements: int
    rows_avoided: int
    routes_right: int
    routes_wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBehindStats:
    """The saves that were answered BUFFERED, and what became of each.

    `buffered` is the sum of the five that follow it and of `pending`.

    Attributes:
        persisted, skipped: Written, or found to be stored already.
        coalesced: Never written: a newer state of the run took their place.
        superseded: Never written: another server had written the run meanwhile.
        lost: Given up.
        pending, pending_bytes: Held in memory now: what a crash would lose.
        oldest_age_s: Seconds since the oldest of them was answered.
        flush_failures: Attempts to write that failed.
        declined: Saves that allowed to be buffered and were durable, by the reason.
        max_runs, max_bytes, max_age_s: What is held at most, all workers together, and how long.
    """

    buffered: int
    persisted: int
    skipped: int
    coalesced: int
    superseded: int
    lost: int
    pending: int
    pending_bytes: int
    oldest_age_s: float
    flush_failures: int
    declined: Mapping[str, int]
    max_runs: int
    max_bytes: int
    max_age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """Why a process went to standard by itself.

    Attributes:
        at: By the machine's clock.
        crossed: The limit that was crossed: `FALLBACK_RATE`, `MEAN` or `P99`.
        value, limit: A share of 1, or seconds.
        saves: Of the optimized path in the window.
    """

    at: datetime
    crossed: str
    value: float
    limit: float
    saves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One process of a server.

    Attributes:
        index: Its number, from 0.
        process_id: On the server's machine.
        saves: Saves that it acknowledged.
        trip: None while the flags hold.
    """

    index: int
    process_id: int
    started_at: datetime
    saves: int
    trip: Trip | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A queue of lines before the thread that writes them. No save ever waits for it.

    Attributes:
        depth: Lines that wait now.
        dropped: Lines that nobody will see: the queue was full, or they could not be written.
    """

    depth: int
    written: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """What the server did since it started, all its workers together.

    Attributes:
        unknown_checkpoint_types: Saves of a checkpoint type that the server does not know.
        circuit_open: Whether the circuit breaker keeps saves off the optimized path.
        workers: The processes that are summed here; one unless the server has several.
        silent_workers: Workers that did not answer and are not summed.
        arms: Of a rollout, counted since `arms_since`, when it last changed.
        tripped: Whether a worker went to standard by itself; it says why.
        monitoring: The lines about saves.
        log: All other lines.
    """

    started_at: datetime
    paths: tuple[PathStats, ...]
    cache: CacheStats
    pools: tuple[PoolStats, ...]
    unknown_checkpoint_types: int
    circuit_open: bool
    workers: tuple[WorkerStats, ...]
    silent_workers: int
    arms: tuple[ArmStats, ...]
    arms_since: datetime
    shadow: ShadowStats
    tripped: bool
    monitoring: QueueStats
    log: QueueStats
    write_behind: WriteBehindStats


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFlag:
    """A flag as it is set for the fleet, a tenant or a run.

    Attributes:
        tenant, run_id: Empty for all of them.
        version: The number of the change that set it, for `expected_version`.
        set_by: Who says to have set it.
        problem: Why it has no effect in the server that answered; empty when it has.
    """

    name: str
    tenant: str
    run_id: str
    value: str
    version: int
    set_by: str
    set_at: datetime
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagInForce:
    """What holds in a server, for tenants and runs without a value of their own.

    Attributes:
        source: `DEFAULT`, `ENVIRONMENT` or `STORED`.
    """

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagList:
    """The flags of the fleet as a server knows them.

    Attributes:
        version: The number of the newest change that the server follows.
        flags: What is set.
        in_force: What holds in the server that answered.
    """

    version: int
    flags: tuple[StoredFlag, ...]
    in_force: tuple[FlagInForce, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagChange:
    """One line of the history of the flags.

    Attributes:
        version: Its number, counted from 1.
        tenant, run_id: Empty for all of them.
        value_before, value_after: None where the flag was or is not set.
        changed_by: Who says to have changed it.
    """

    version: int
    name: str
    tenant: str
    run_id: str
    value_before: str | None
    value_after: str | None
    changed_by: str
    changed_at: datetime
