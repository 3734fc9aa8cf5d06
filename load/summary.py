"""The figures of a load run: medians over the rounds, and ratios inside each round."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from load.ghz import histogram, percentile
from load.rounds import CLOSED, DAPR, ECHO, LOAD, MIX, SAVE, SKIP, Measurement

FORMAT = 1
"""Of the report; a baseline of another one is refused."""


class NoBaseline(ValueError):
    """A file cannot be compared with; the message says why."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """The spread of some values; None of nothing."""
        known = list(values)
        return cls(statistics.median(known), min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scenario or contender, all rounds together.

    Attributes:
        rate: Successful calls per second.
        to_echo: The rate as a share of the echo's in the same round; None for the echo itself, for
            parts that shared the machine with others, and in the open loop, whose rate is given.
        p50_ms, p95_ms, p99_ms: Medians of the rounds.
        histogram: Upper bounds in milliseconds and how many calls lie below, over all rounds.
        rates: Of each round.
    """

    name: str
    loop: str
    concurrency: int
    rps: int | None
    rate: Spread
    to_echo: Spread | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    calls: int
    statuses: Mapping[str, int]
    errors: Mapping[str, int]
    histogram: Sequence[tuple[float, int]]
    rates: Sequence[float]

    @property
    def key(self) -> tuple[str, str, int]:
        """What names the row in every report."""
        return self.loop, self.name, self.concurrency


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """Our saves as a multiple of Dapr's in the same round."""

    concurrency: int
    ratio: Spread


def summarise(measurements: Sequence[Measurement]) -> list[Row]:
    """One row for each scenario, contender, loop and concurrency, in the order measured first."""
    groups: dict[tuple[str, int, str], list[Measurement]] = {}
    for each in sorted(measurements, key=lambda each: (each.loop, each.concurrency, each.round)):
        groups.setdefault((each.loop, each.concurrency, each.name), []).append(each)
    return [_row(group, measurements) for group in groups.values()]


def against_dapr(measurements: Sequence[Measurement]) -> list[Versus]:
    """Our saves against Dapr's at each concurrency; nothing if it took no part."""
    found = []
    for concurrency in sorted({each.concurrency for each in measurements}):
        same = [each for each in measurements if each.concurrency == concurrency]
        saves = [each for each in same if each.name == SAVE]
        if ratio := Spread.of(_ratios(saves, same, DAPR)):
            found.append(Versus(concurrency=concurrency, ratio=ratio))
    return found


def _row(group: Sequence[Measurement], everything: Sequence[Measurement]) -> Row:
    first = group[0]
    rates = [each.seen.rate for each in group]
    statuses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for each in group:
        statuses.update(each.seen.statuses)
        errors.update(each.seen.errors)

    def latency(percent: float) -> float:
        return statistics.median(percentile(each.seen.latency_ms, percent) for each in group)

    return Row(
        name=first.name,
        loop=first.loop,
        concurrency=first.concurrency,
        rps=first.rps,
        rate=Spread(statistics.median(rates), min(rates), max(rates)),
        to_echo=Spread.of(_ratios(group, everything, ECHO)) if _compares(first) else None,
        p50_ms=latency(50),
        p95_ms=latency(95),
        p99_ms=latency(99),
        calls=sum(each.seen.calls for each in group),
        statuses=dict(statuses),
        errors=dict(errors),
        histogram=histogram([ms for each in group for ms in each.seen.latency_ms]),
        rates=rates,
    )


def _compares(measurement: Measurement) -> bool:
    """Whether a rate says how much the server can take, and is not the echo's own."""
    part = measurement.name.startswith(f"{MIX}:")
    return measurement.loop == CLOSED and measurement.name != ECHO and not part


def _ratios(
    group: Sequence[Measurement], everything: Sequence[Measurement], below: str
) -> list[float]:
    """The rates of a group as multiples of another contender's in the same turns."""
    rates = {
        (each.loop, each.concurrency, each.round): each.seen.rate
        for each in everything
        if each.name == below
    }
    return [
        each.seen.rate / rate
        for each in group
        if (rate := rates.get((each.loop, each.concurrency, each.round), 0.0)) > 0
    ]


def to_json(
    rows: Sequence[Row],
    versus: Sequence[Versus],
    *,
    about: Mapping[str, Any],
    faults: Sequence[str],
) -> dict[str, Any]:
    """A report for programs, and to compare with later."""
    return {
        "format": FORMAT,
        "about": dict(about),
        "rows": [asdict(row) for row in rows],
        "save_to_dapr": [asdict(each) for each in versus],
        "faults": list(faults),
    }


def for_bench(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The closed loop's rates in the form in which `make bench` takes them over."""
    return {
        "rounds": [
            {
                "contender": f"ghz_{each.name}",
                "concurrency": each.concurrency,
                "round_number": each.round,
                "values": {"rate": each.seen.rate},
            }
            for each in measurements
            if each.loop == CLOSED and each.name in (ECHO, SAVE, SKIP, LOAD, DAPR)
        ]
    }


def read_baseline(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The rows of an earlier report by their keys. Raises NoBaseline."""
    try:
        report = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NoBaseline(f"cannot read the baseline {path}: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise NoBaseline(f"{path} is no report of this version of `make load`")
    return {(row["loop"], row["name"], row["concurrency"]): row for row in report["rows"]}
