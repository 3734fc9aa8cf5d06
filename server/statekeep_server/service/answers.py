"""What the facade answers: an acknowledgement with its path, and what the service counted."""

from collections.abc import Mapping
from dataclasses import dataclass

from statekeep_server.domain.model import Path, SaveResult
from statekeep_server.service.ports import CacheStatistics, PoolStatistics


@dataclass(frozen=True, slots=True)
class FallbackCause:
    """The first error of a save that the standard path then served."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SaveAck:
    """The acknowledgement of a save: sent after its commit, or after the barrier of a skip."""

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
class ServiceStatistics:
    """What a server did since it started."""

    started_at_us: int
    paths: tuple[PathStatistics, ...]
    cache: CacheStatistics | None
    routes_right: int
    routes_wrong: int
    unknown_checkpoint_types: int
    circuit_open: bool
