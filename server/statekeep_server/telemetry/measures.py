"""What a server measures: read from those who count, when somebody collects."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from statekeep_server.telemetry.buckets import Bucketed
from statekeep_server.telemetry.instruments import Metric

Points = Mapping[tuple[str, ...], float | Bucketed]
"""Values by the values of the metric's labels, in their order."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric as it is now."""

    metric: Metric
    points: Points


Source = Callable[[], Iterable[Reading]]


class Measures:
    """Everybody who counts."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def follow(self, source: Source) -> None:
        """Ask this one too."""
        self._sources.append(source)

    @contextmanager
    def following(self, source: Source) -> Iterator[None]:
        """Ask this one too; when it is left, what it said last stays said."""
        self._sources.append(source)
        try:
            yield
        finally:
            last = tuple(source())
            self._sources[self._sources.index(source)] = lambda: last

    def collect(self) -> list[Reading]:
        """Ask everyone; to be called on the event loop, where they count."""
        return [reading for source in self._sources for reading in source() if reading.points]


def one(metric: Metric, value: float) -> Reading:
    """Make the reading of a metric without labels."""
    return Reading(metric, {(): value})
