"""What was measured, by contender, concurrency and metric, and its statistics."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One contender, measured once.

    Attributes:
        contender: What was measured, for example `save`.
        concurrency: Calls under way at once; 0 where it means nothing.
        round_number: From 0; contenders of one round were measured right after one another.
        values: By metric: `rate` (a second), `mean_us`, `p50_us`, `p99_us`; `client_cores`,
            `server_cores`, `database_cores` and `foreign_cores` (what others used meanwhile);
            `server_us`, `database_us` (processor time a call); sizes in `…_bytes`.
    """

    contender: str
    concurrency: int
    round_number: int
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Everything, rounded to what can be meant."""
        return {
            **asdict(self),
            "values": {name: rounded(value) for name, value in self.values.items()},
        }


QUIET_CORES = 0.2
"""What other programs may take before a measurement counts as crowded."""


@dataclass(frozen=True, slots=True)
class Key:
    """Names one number of each round."""

    contender: str
    metric: str = "rate"
    concurrency: int = 0


class Rounds:
    """All measurements of a run."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        self._all = list(measurements)

    def add(self, measurement: Measurement) -> None:
        """Keep one more."""
        self._all.append(measurement)

    def by_round(self, key: Key) -> dict[int, float]:
        """The number that a key names, in every round that has it."""
        return {
            each.round_number: each.values[key.metric]
            for each in self._all
            if each.contender == key.contender
            and each.concurrency == key.concurrency
            and key.metric in each.values
        }

    def crowded(self, key: Key) -> frozenset[int]:
        """The rounds in which other programs took much while this number was measured."""
        taken = self.by_round(Key(key.contender, "foreign_cores", key.concurrency))
        return frozenset(number for number, cores in taken.items() if cores > QUIET_CORES)

    def contenders(self) -> list[tuple[str, int]]:
        """Who was measured at which concurrency, in the order in which they first were."""
        return list(dict.fromkeys((each.contender, each.concurrency) for each in self._all))

    def to_json(self) -> list[dict[str, Any]]:
        """All of them, for programs."""
        return [each.to_json() for each in self._all]


def latency_values(latencies_us: Sequence[int]) -> dict[str, float]:
    """Mean, median and 99th percentile of durations in microseconds; nothing of no durations."""
    if not latencies_us:
        return {}
    ordered = sorted(latencies_us)
    return {
        "mean_us": math.fsum(ordered) / len(ordered),
        "p50_us": percentile(ordered, 0.50),
        "p99_us": percentile(ordered, 0.99),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that the share of all values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def rounded(value: float) -> float:
    """Four digits, and whole numbers whole."""
    if not value or not math.isfinite(value):
        return 0.0
    digits = 3 - math.floor(math.log10(abs(value)))
    return round(value, max(0, digits))
