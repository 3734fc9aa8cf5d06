"""The results as tables for people and as JSON for programs."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.measurements import Key, Rounds, median, rounded
from benchmarks.targets import Outcome

NOTHING = "-"
GROWTH = "growth_"
"""Begins the names of contenders that have a table of their own."""


def render_targets(outcomes: Iterable[Outcome]) -> str:
    """Target beside measured, one row each, as a Markdown table."""
    rows = [
        (
            outcome.target.name,
            outcome.target.concurrency,
            outcome.target.wanted,
            _measured(outcome),
            _spread(outcome),
            "yes" if outcome.met else "no",
            _crowded(outcome),
        )
        for outcome in outcomes
    ]
    heads = ("what", "concurrent", "target", "measured", "spread", "met", "crowded rounds")
    return table(heads, rows, right=(2, 3))


def render_beside(outcomes: Iterable[Outcome]) -> str:
    """Ratios without a target, as a Markdown table; what was not measured is left out."""
    rows = [
        (outcome.target.name, outcome.target.concurrency, _measured(outcome), _spread(outcome))
        for outcome in outcomes
        if outcome.measured is not None
    ]
    heads = ("also measured", "concurrent", "measured", "spread")
    return table(heads, rows, right=(2,)) if rows else ""


def _crowded(outcome: Outcome) -> str:
    return f"{len(outcome.crowded)} of {outcome.rounds}" if outcome.crowded else NOTHING


def _measured(outcome: Outcome) -> str:
    if outcome.measured is None:
        return outcome.why
    return _ratio(outcome.measured, outcome.target.unit)


def _spread(outcome: Outcome) -> str:
    if outcome.spread is None:
        return NOTHING
    low, high = (_ratio(each, outcome.target.unit) for each in outcome.spread)
    return f"{low} to {high}" if low != high else NOTHING


def _ratio(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.2f} ×"


COLUMNS: Sequence[tuple[str, str, float]] = (
    ("a second", "rate", 1.0),
    ("p50 ms", "p50_us", 1_000.0),
    ("p99 ms", "p99_us", 1_000.0),
    ("server µs", "server_us", 1.0),
    ("database µs", "database_us", 1.0),
    ("client cores", "client_cores", 1.0),
    ("server cores", "server_cores", 1.0),
    ("database cores", "database_cores", 1.0),
    ("foreign cores", "foreign_cores", 1.0),
)


def render_contenders(rounds: Rounds) -> str:
    """Medians of every contender that was loaded, as a Markdown table."""
    rows = []
    for contender, concurrency in rounds.contenders():
        if contender.startswith(GROWTH):
            continue
        cells = []
        for _, metric, divisor in COLUMNS:
            values = rounds.by_round(Key(contender, metric, concurrency)).values()
            cells.append(_number(median(values) / divisor) if values else NOTHING)
        if any(cell != NOTHING for cell in cells):
            rows.append((contender, str(concurrency), *cells))
    heads = ("contender", "concurrent", *(head for head, _, _ in COLUMNS))
    return table(heads, rows, right=range(1, len(heads)))


def render_sizes(rounds: Rounds) -> str:
    """Everything that was weighed, as a Markdown table."""
    rows = []
    for each in rounds.to_json():
        rows += [
            (each["contender"], name.removesuffix("_bytes"), f"{int(value):,}")
            for name, value in each["values"].items()
            if name.endswith("_bytes") and each["round_number"] == 0
        ]
    return table(("what", "of it", "bytes"), rows, right=(2,))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A Markdown table that is aligned as text too."""
    cells = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    to_right = set(right)

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in to_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + ":" if column in to_right else "-" * width
        for column, width in enumerate(widths)
    ]
    return "\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])])


def to_json(
    rounds: Rounds,
    outcomes: Iterable[Outcome],
    beside: Iterable[Outcome],
    problems: Sequence[str],
    about: dict[str, object],
) -> dict[str, Any]:
    """Everything: what was measured where, the targets, and the raw rounds."""
    return {
        **about,
        "targets": [outcome.to_json() for outcome in outcomes],
        "beside": [
            {"name": each["name"], "concurrency": each["concurrency"]}
            | {"measured": each["measured"], "spread": each["spread"]}
            for each in (outcome.to_json() for outcome in beside)
        ],
        "problems": list(problems),
        "rounds": rounds.to_json(),
    }


def _number(value: float) -> str:
    return f"{rounded(value):,g}" if value < 1_000 else f"{value:,.0f}"
