"""How the cost of a save grows: what is varied, as a table and as pictures.

One thing is varied at a time; everything else stays as in the other scenarios: 10 kB, distinct
states, many runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measurements import Key, Rounds, median, rounded
from benchmarks.report import GROWTH as PREFIX
from benchmarks.report import table

KIB = 1_024
SIZES = (1 * KIB, 10 * KIB, 100 * KIB, 1_024 * KIB)
SIZES_AT = 16
"""Calls under way while the size is varied: enough for groups, and few enough for 1 MB."""
HISTORIES = (1, 10, 100, 1_000, 10_000)
HISTORIES_AT = 1
CONCURRENCIES = (1, 4, 16, 64, 256)
WORKERS = (1, 2)
WORKERS_AT = (64, 256)


@dataclass(frozen=True, slots=True)
class Axis:
    """What is varied.

    Attributes:
        title: Of its picture.
        label: Of its values.
        points: A value, and whose measurement shows it.
    """

    title: str
    label: str
    points: Sequence[tuple[int, str, int]]

    def values(self, rounds: Rounds, metric: str) -> list[tuple[int, list[float]]]:
        """The values that were measured, each with the metric of every round."""
        found = []
        for value, contender, concurrency in self.points:
            measured = rounds.by_round(Key(contender, metric, concurrency))
            if measured:
                found.append((value, list(measured.values())))
        return found


def by_size(size: int) -> str:
    """The contender with states of a size."""
    return f"{PREFIX}size_{size}"


def by_history(versions: int) -> str:
    """The contender whose runs have so many versions."""
    return f"{PREFIX}history_{versions}"


def by_workers(workers: int) -> str:
    """The contender with so many processes."""
    return f"{PREFIX}workers_{workers}"


BY_CONCURRENCY = f"{PREFIX}concurrency"
SIZE = Axis(
    f"size of a state, {SIZES_AT} concurrent",
    "bytes",
    [(size, by_size(size), SIZES_AT) for size in SIZES],
)
HISTORY = Axis(
    "versions that the run has, 1 concurrent",
    "versions",
    [(versions, by_history(versions), HISTORIES_AT) for versions in HISTORIES],
)
CONCURRENCY = Axis(
    "calls under way", "concurrent", [(each, BY_CONCURRENCY, each) for each in CONCURRENCIES]
)
WORKER_AXES = tuple(
    Axis(
        f"worker processes, {concurrency} concurrent",
        "workers",
        [(workers, by_workers(workers), concurrency) for workers in WORKERS],
    )
    for concurrency in WORKERS_AT
)
AXES = (SIZE, HISTORY, CONCURRENCY, *WORKER_AXES)
COLUMNS = (
    ("a second", "rate", 1.0),
    ("p50 ms", "p50_us", 1_000.0),
    ("p99 ms", "p99_us", 1_000.0),
    ("server µs a save", "server_us", 1.0),
    ("database µs a save", "database_us", 1.0),
    ("client cores", "client_cores", 1.0),
)


def render_growth(rounds: Rounds) -> str:
    """The medians of all values, as a Markdown table; nothing where nothing was measured."""
    rows = []
    for axis in AXES:
        columns = [dict(axis.values(rounds, metric)) for _, metric, _ in COLUMNS]
        for value, _, _ in axis.points:
            if value in columns[0]:
                cells = (
                    f"{rounded(median(column[value]) / divisor):,g}" if value in column else "-"
                    for column, (_, _, divisor) in zip(columns, COLUMNS, strict=True)
                )
                rows.append((axis.title, f"{value:,}", *cells))
    heads = ("what is varied", "value", *(head for head, _, _ in COLUMNS))
    return table(heads, rows, right=range(1, len(heads))) if rows else ""


def plot_growth(rounds: Rounds) -> Any | None:
    """A figure with the processor time and the median duration over each axis; None of nothing."""
    from matplotlib import pyplot as plt

    axes_shown = [axis for axis in AXES if axis.values(rounds, "rate")]
    if not axes_shown:
        return None
    figure, grid = plt.subplots(
        2, len(axes_shown), figsize=(3.4 * len(axes_shown), 6.2), squeeze=False
    )
    for axis, (above, below) in zip(axes_shown, zip(*grid, strict=True), strict=True):
        _lines(above, axis, rounds, (("server", "server_us"), ("database", "database_us")), 1.0)
        _lines(below, axis, rounds, (("p50", "p50_us"), ("p99", "p99_us")), 1_000.0)
        above.set_title(axis.title, fontsize=9)
        below.set_xlabel(axis.label)
    grid[0][0].set_ylabel("processor µs a save")
    grid[1][0].set_ylabel("ms a save")
    return figure


def _lines(
    axes: Any, axis: Axis, rounds: Rounds, metrics: Sequence[tuple[str, str]], divisor: float
) -> None:
    """One line for each metric, with the smallest and largest round as a bar."""
    for label, metric in metrics:
        points = axis.values(rounds, metric)
        if not points:
            continue
        places = [value for value, _ in points]
        middles = [median(values) / divisor for _, values in points]
        lowest = [min(values) / divisor for _, values in points]
        highest = [max(values) / divisor for _, values in points]
        spread = [
            [middle - low for middle, low in zip(middles, lowest, strict=True)],
            [high - middle for middle, high in zip(middles, highest, strict=True)],
        ]
        axes.errorbar(places, middles, spread, marker="o", markersize=3, capsize=2, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    values = [value for value, _, _ in axis.points]
    axes.set_xticks(values, [short(value) for value in values])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=8)


def short(value: int) -> str:
    """A number that fits below a small picture."""
    if value >= KIB and value % KIB == 0:
        return f"{value // KIB} kB" if value < KIB * KIB else f"{value // KIB // KIB} MB"
    return f"{value // 1_000}k" if value >= 1_000 else str(value)
