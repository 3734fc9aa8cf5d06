"""A bounded histogram of durations: cheap to record, exact in its mean, 3 % wide in its quantiles.

Buckets are linear up to 64 microseconds, each one wide, and from there on every doubling is cut
into 32 buckets, as in HdrHistogram (Gil Tene): a bucket is at most 1/32 of its lower bound wide.
The lower bound names a bucket wherever it is told, so that histograms of several processes are
added up bucket by bucket.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

SUB_BITS = 5
LINEAR = 2 << SUB_BITS
"""Buckets of one microsecond."""
MAX_BITS = 31
"""Durations of 2^31 microseconds (36 minutes) and more share the last bucket: no call lasts so
long."""
BUCKETS = (MAX_BITS - SUB_BITS + 1) << SUB_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """What a histogram holds, as it is told.

    Attributes:
        sum_squares: Of the durations in seconds; for their variance.
        buckets: Durations by the lower bound of their bucket in microseconds; none that is empty.
    """

    count: int = 0
    sum_s: float = 0.0
    sum_squares: float = 0.0
    buckets: Mapping[int, int]


class Histogram:
    """Counts durations."""

    __slots__ = ("_counts", "count", "sum_s", "sum_squares")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.count = 0
        self.sum_s = 0.0
        self.sum_squares = 0.0

    def record(self, duration_s: float) -> None:
        """Count one duration."""
        self.count += 1
        self.sum_s += duration_s
        self.sum_squares += duration_s * duration_s
        self._counts[bucket_of(int(duration_s * 1_000_000))] += 1

    def durations(self) -> Durations:
        """Tell what was counted."""
        return Durations(
            count=self.count,
            sum_s=self.sum_s,
            sum_squares=self.sum_squares,
            buckets={lower_us(i): count for i, count in enumerate(self._counts) if count},
        )


def bucket_of(duration_us: int) -> int:
    """Find the bucket of a duration. A clock that jumped back gives the first."""
    if duration_us < LINEAR:
        return max(0, duration_us)
    shift = duration_us.bit_length() - SUB_BITS - 1
    if shift > MAX_BITS - SUB_BITS - 1:
        return BUCKETS - 1
    return (shift << SUB_BITS) + (duration_us >> shift)


def lower_us(bucket: int) -> int:
    """Name the least duration of a bucket."""
    if bucket < LINEAR:
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    return (bucket - (shift << SUB_BITS)) << shift


def width_us(lower_bound_us: int) -> int:
    """Say how wide the bucket with a lower bound is."""
    return 1 << max(0, lower_bound_us.bit_length() - SUB_BITS - 1)


def quantile_s(durations: Durations, share: float) -> float:
    """Estimate a quantile by the middle of its bucket; 0.0 of nothing."""
    if not durations.count:
        return 0.0
    lower = at_rank_us(durations, max(1, math.ceil(share * durations.count)))
    return (lower + width_us(lower) / 2) / 1_000_000


def at_rank_us(durations: Durations, rank: int) -> int:
    """Find the bucket of the duration of a rank, counted from 1, by its lower bound."""
    bounds = sorted(durations.buckets)
    passed = accumulate(durations.buckets[lower] for lower in bounds)
    return next(lower for lower, count in zip(bounds, passed, strict=True) if count >= rank)


def added(first: Durations, second: Durations) -> Durations:
    """Add two histograms up."""
    buckets = dict(first.buckets)
    for lower, count in second.buckets.items():
        buckets[lower] = buckets.get(lower, 0) + count
    return Durations(
        count=first.count + second.count,
        sum_s=first.sum_s + second.sum_s,
        sum_squares=first.sum_squares + second.sum_squares,
        buckets=buckets,
    )
