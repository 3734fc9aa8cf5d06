"""Histograms as metrics have them: counted by the server itself, read when somebody collects.

Recording through the SDK's instruments would cost several microseconds a time.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from statekeep_server.telemetry.spans import current


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A value that was recorded within a trace."""

    value: float
    at_us: int
    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucketed:
    """What a histogram counted.

    Attributes:
        counts: Of the buckets: up to each of the bounds, and beyond the last one.
        exemplars: The newest of a bucket, by its index.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float
    exemplars: Mapping[int, Exemplar]


class Buckets:
    """Counts values between bounds."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: dict[int, Exemplar] = {}
        self.sum = 0.0

    def record(self, value: float) -> None:
        """Count a value."""
        index = bisect_left(self._bounds, value)
        self._counts[index] += 1
        self.sum += value
        span = current()
        if span is not None:
            self._exemplars[index] = Exemplar(value, span.now_us(), span.trace_id, span.span_id)

    def add(self, value: float, times: int) -> None:
        """Count a value so many times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def read(self) -> Bucketed:
        """Tell what was counted."""
        return Bucketed(
            bounds=self._bounds,
            counts=tuple(self._counts),
            sum=self.sum,
            exemplars=dict(self._exemplars),
        )
