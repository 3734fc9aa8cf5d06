"""The figures by which operators judge the optimized path, from what servers counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from statekeep_server.domain.model import Path

ROWS_PER_SAVE = 4
"""What a persisted save writes: snapshot, audit record, request result, and the head that moves."""


class CountedPath(Protocol):
    """What one path counted; of `PathStatistics` and of the client's `PathStats`."""

    @property
    def path(self) -> str:
        """Its name."""
        ...

    @property
    def saves(self) -> int:
        """Acknowledged."""
        ...

    @property
    def persisted(self) -> int:
        """Of these, written."""
        ...

    @property
    def skipped(self) -> int:
        """Of these, skipped."""
        ...

    @property
    def fallbacks(self) -> Mapping[str, int]:
        """By reason."""
        ...

    @property
    def persisted_mean_s(self) -> float:
        """Mean duration."""
        ...

    @property
    def skipped_mean_s(self) -> float:
        """Mean duration."""
        ...


class CountedCache(Protocol):
    """What a head cache counted."""

    @property
    def hits(self) -> int:
        """Look-ups that found an entry."""
        ...

    @property
    def misses(self) -> int:
        """Look-ups that found none."""
        ...


class CountedPool(Protocol):
    """A connection pool as it is now."""

    @property
    def pool_size(self) -> int:
        """Connections kept open."""
        ...

    @property
    def max_overflow(self) -> int:
        """Connections that may be opened beyond."""
        ...

    @property
    def checked_out(self) -> int:
        """Connections in use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpis:
    """The figures. A rate is a share of 1, and None where nothing was counted yet.

    Attributes:
        skip_rate: Of all acknowledged saves.
        saved_mean_s, skipped_mean_s: Mean durations.
        pool_use: Of the connections that the fullest pool may open; None without a pool.
        fallback_rate: Of the saves of the optimized path; standard served them.
        cache_hit_rate: Of the look-ups in the head cache.
        writes_avoided: Rows that the skipped saves would have written.
    """

    skip_rate: float | None
    saved_mean_s: float | None
    skipped_mean_s: float | None
    pool_use: float | None
    fallback_rate: float | None
    cache_hit_rate: float | None
    writes_avoided: int


def kpis(
    paths: Iterable[CountedPath], cache: CountedCache | None, pools: Iterable[CountedPool]
) -> Kpis:
    """Work the figures out."""
    counted = tuple(paths)
    persisted = sum(path.persisted for path in counted)
    skipped = sum(path.skipped for path in counted)
    fallbacks = sum(sum(path.fallbacks.values()) for path in counted)
    # What the optimized path could not serve is not among its saves.
    optimized = sum(path.saves for path in counted if path.path == Path.OPTIMIZED)
    uses = [pool.checked_out / (pool.pool_size + pool.max_overflow) for pool in pools]
    saved_s = sum(path.persisted * path.persisted_mean_s for path in counted)
    skipped_s = sum(path.skipped * path.skipped_mean_s for path in counted)
    return Kpis(
        skip_rate=_share(skipped, sum(path.saves for path in counted)),
        saved_mean_s=saved_s / persisted if persisted else None,
        skipped_mean_s=skipped_s / skipped if skipped else None,
        pool_use=max(uses, default=None),
        fallback_rate=_share(fallbacks, optimized + fallbacks),
        cache_hit_rate=None if cache is None else _share(cache.hits, cache.hits + cache.misses),
        writes_avoided=skipped * ROWS_PER_SAVE,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
