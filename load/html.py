"""The report as pages: one of each scenario or contender, and one of them all."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from load.page import fell_behind
from load.rounds import CLOSED
from load.summary import Row, Spread

STYLE = """
:root { color-scheme: light dark; --bar: #3572b0; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.bar { width: 60%; text-align: left; } td.bar span { display: block; height: .8rem;
  background: var(--bar); }
.fault { color: #c22; font-weight: 600; } pre { overflow-x: auto; }
"""
HEAD = (
    *("", "loop", "concurrent", "asked/s", "requests/s", "least-most", "× echo", "least-most"),
    *("p50 ms", "p95 ms", "p99 ms", "calls", "not OK"),
)


def index_page(rows: Sequence[Row], *, page: str, faults: Sequence[str]) -> str:
    """All figures, and links to the pages of the scenarios."""
    links = " · ".join(f'<a href="{name}.html">{name}</a>' for name in by_scenario(rows))
    return _page(
        "Load run",
        [
            _faults(faults),
            f"<p>{links}</p>",
            _figures(rows),
            f"<h2>Summary</h2><pre>{escape(page)}</pre>",
        ],
    )


def scenario_page(name: str, rows: Sequence[Row], *, about: Mapping[str, Any]) -> str:
    """One scenario: its figures, its statuses, and how its latencies are spread."""
    parts = [
        f"<p><a href='index.html'>All scenarios</a>. Commit {escape(str(about['commit']))}, "
        f"{escape(str(about['machine']))}, PostgreSQL {escape(str(about['postgresql']))}.</p>",
        _figures(rows),
    ]
    for row in rows:
        pace = f"{row.concurrency} concurrent" if row.loop == CLOSED else f"{row.rps}/s"
        parts.append(f"<h2>{escape(row.name)}, {row.loop} loop, {pace}</h2>")
        parts.append(_table(("status", "calls"), _counts(row.statuses)))
        if row.errors:
            parts.append(_table(("error", "calls"), _counts(row.errors)))
        parts.append(_histogram(row.histogram))
    return _page(name, parts)


def by_scenario(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each page by its name; the parts of a mix share one with the whole."""
    pages: dict[str, list[Row]] = {}
    for row in rows:
        pages.setdefault(row.name.partition(":")[0], []).append(row)
    return pages


def _figures(rows: Sequence[Row]) -> str:
    return _table(HEAD, [_figure(row) for row in rows])


def _figure(row: Row) -> list[str]:
    not_ok = row.calls - row.statuses.get("OK", 0)
    return [
        escape(row.name),
        row.loop,
        f"{row.concurrency}",
        f"{row.rps:,}" if row.rps else "",
        f"{row.rate.median:,.0f}" + (" (fell behind)" if fell_behind(row) else ""),
        _range(row.rate, ",.0f"),
        *(("", "") if row.to_echo is None else _share(row.to_echo)),
        *(f"{each:.2f}" for each in (row.p50_ms, row.p95_ms, row.p99_ms)),
        f"{row.calls:,}",
        f'<span class="fault">{not_ok:,}</span>' if not_ok else "0",
    ]


def _share(spread: Spread) -> tuple[str, str]:
    return f"{spread.median:.2f}", _range(spread, ".2f")


def _range(spread: Spread, form: str) -> str:
    return f"{spread.least:{form}}-{spread.most:{form}}"


def _counts(counts: Mapping[str, int]) -> list[list[str]]:
    return [[escape(name), f"{count:,}"] for name, count in counts.items()]


def _histogram(buckets: Sequence[tuple[float, int]]) -> str:
    most = max((count for _, count in buckets), default=0)
    rows = [
        f'<tr><td>{bound:,.2f}</td><td>{count:,}</td><td class="bar">'
        f'<span style="width: {100 * count / most:.1f}%"></span></td></tr>'
        for bound, count in buckets
    ]
    head = "<tr><th>up to ms</th><th>calls</th><th></th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{each}</th>" for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{each}</td>' for each in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _faults(faults: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(fault)}</li>" for fault in faults)
    return f'<div class="fault">This run failed.<ul>{items}</ul></div>' if faults else ""


def _page(title: str, parts: Iterable[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - statekeep</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )
