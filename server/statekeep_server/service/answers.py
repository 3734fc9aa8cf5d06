"""What the facade answers: an acknowledgement with its path, and what the service counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from statekeep_server.domain.model import Path, SaveResult
from statekeep_server.domain.values import value_class
from statekeep_server.service.histogram import Durations
from statekeep_server.service.ports import CacheStatistics, PoolStatistics
from statekeep_server.telemetry.event_queue import QueueStatistics


@dataclass(frozen=True, slots=True)
class FallbackCause:
    """The first error of a save that the standard path then served."""

    reason: str
    message: str


@value_class()
class SaveAck:
    """The acknowledgement of a save: sent after its commit, or after the barrier of a skip.

    One that is BUFFERED is sent before.
    """

    result: SaveResult
    path: Path
    fallback_cause: FallbackCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatistics:
    """What one path did since the server started.

    Attributes:
        decisions: Acknowledged saves by `Reason`.
        failures: Failed saves by the reason of their error.
        fallbacks: Saves that left this path, by the reason of the first error.
        persisted_mean_s, skipped_mean_s: 0.0 before the first.
    """

    path: Path
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
    pool: PoolStatistics | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStatistics:
    """What became of the saves for which the flags chose one path, since the rollout changed.

    Attributes:
        saves, skipped, rows_written, statements: Of the path.
        failures: Failed saves by the reason of their error, whichever path failed last.
        fallbacks: Saves that standard had to serve.
        persisted_durations, skipped_durations: Whichever path served; batches are left out.
    """

    path: Path
    saves: int
    skipped: int
    rows_written: int
    statements: int
    failures: Mapping[str, int]
    fallbacks: int
    persisted_durations: Durations
    skipped_durations: Durations


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStatistics:
    """What the optimized path would have made of saves that standard persisted.

    Attributes:
        would_persist: By `Reason`.
        disagreements: Saves that would have been skipped although their fields had changed.
        rows_avoided: Rows that the optimized path would not have written.
        routes_right, routes_wrong: As its head cache would have chosen them.
    """

    would_skip: int
    would_persist: Mapping[str, int]
    disagreements: int
    rows_avoided: int
    routes_right: int
    routes_wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBehindStatistics:
    """What became of the saves that were answered BUFFERED (see `service.write_buffer.Fate`).

    `buffered` is the sum of the five that follow it and of `pending`.

    Attributes:
        flush_failures: Attempts to write that failed.
        declined: Saves that may have been buffered and were durable, by `Declined`.
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


class Limit(StrEnum):
    """A limit at which a server trips."""

    FALLBACK_RATE = "FALLBACK_RATE"
    MEAN = "MEAN"
    P99 = "P99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripped:
    """Why a server went to standard, with the numbers of its window.

    Attributes:
        at_us: By this machine's clock.
        value, limit: Of what was crossed: a share of 1, or seconds.
        saves: Of the optimized path in the window.
    """

    at_us: int
    crossed: Limit
    value: float
    limit: float
    saves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatistics:
    """What a server did since it started.

    Attributes:
        arms: Both, since `arms_since_us`, when the rollout changed.
        tripped: Why standard serves against the flags; None when it does not.
        monitoring: The lines about saves.
        log: All other lines; None where the log is not ours.
    """

    started_at_us: int
    paths: tuple[PathStatistics, ...]
    cache: CacheStatistics | None
    routes_right: int
    routes_wrong: int
    unknown_checkpoint_types: int
    circuit_open: bool
    arms: tuple[ArmStatistics, ...]
    arms_since_us: int
    shadow: ShadowStatistics
    tripped: Tripped | None
    monitoring: QueueStatistics
    log: QueueStatistics | None
    write_behind: WriteBehindStatistics
