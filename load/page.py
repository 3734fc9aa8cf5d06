"""The one-page summary in the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from load.rounds import CLOSED, OPEN
from load.summary import Row, Spread, Versus

WIDTHS = (12, 10, 10, 8, 13, 8, 8, 8, 8, 8)
HEADINGS = {
    CLOSED: ("", "concurrent", "requests/s", "× echo", "least-most"),
    OPEN: ("", "asked/s", "requests/s", "", ""),
}
FIGURES = ("p50 ms", "p95 ms", "p99 ms", "OK", "not OK")
FELL_BEHIND = 0.95
"""Below this share of the rate that was asked for, the open loop did not keep up."""

BUSY = 0.7
"""A load average above which something else needs the processors too."""

Baseline = Mapping[tuple[str, str, int], Mapping[str, Any]]


def make_page(
    rows: Sequence[Row],
    versus: Sequence[Versus],
    *,
    about: Mapping[str, Any],
    baseline: Baseline | None,
    faults: Sequence[str],
) -> str:
    """Everything that a reader wants to see first."""
    lines = [
        f"statekeep {about['version']}, commit {about['commit']}; {about['machine']}; "
        f"PostgreSQL {about['postgresql']}",
        f"{about['ghz']}, {about['plan']['connections']} connections; states of "
        f"{about['plan']['state_bytes']:,} bytes; rounds: {about['plan']['rounds']}",
    ]
    if about["load_average"] > BUSY:
        lines.append(
            f"The machine was busy with other work: load average {about['load_average']:.1f} "
            "before the start. Do not trust these figures."
        )
    for loop, title in (
        (CLOSED, "Closed loop: an answer begins the next call"),
        (OPEN, "Open loop: calls begin at a fixed rate, whatever is still under way"),
    ):
        if found := [row for row in rows if row.loop == loop]:
            lines += ["", title, *_table(loop, found, baseline)]
    lines += [""] * bool(versus)
    lines += [
        f"saves/s, statekeep : Dapr sidecar, {each.concurrency} concurrent: "
        f"{each.ratio.median:.2f} ({_range(each.ratio)})"
        for each in versus
    ]
    lines += ["", *_verdict(faults)]
    return "\n".join(lines)


def _table(loop: str, rows: Sequence[Row], baseline: Baseline | None) -> Iterator[str]:
    extra = () if baseline is None else ("before", "change")
    yield _line(*HEADINGS[loop], *FIGURES, *extra)
    for row in rows:
        pace = f"{row.rps:,}" if row.rps else f"{row.concurrency:,}"
        share = row.to_echo
        yield _line(
            row.name,
            pace,
            f"{row.rate.median:,.0f}",
            "" if share is None else f"{share.median:.2f}",
            "" if share is None else _range(share),
            *(f"{each:.1f}" for each in (row.p50_ms, row.p95_ms, row.p99_ms)),
            f"{row.statuses.get('OK', 0):,}",
            f"{row.calls - row.statuses.get('OK', 0):,}",
            *(() if baseline is None else compare(row, baseline)),
        ) + (" fell behind" if fell_behind(row) else "")


def fell_behind(row: Row) -> bool:
    """Whether an open loop answered noticeably fewer calls a second than were asked for."""
    return row.rps is not None and row.rate.median < FELL_BEHIND * row.rps


def compare(row: Row, baseline: Baseline) -> tuple[str, str]:
    """What an earlier report says, and the change since in percent.

    Machines differ, so shares of the echo are compared; where there is none, what the row is about.
    """
    before = baseline.get(row.key)
    if before is None:
        return "-", "-"
    if row.loop == OPEN:
        return _change(before["p99_ms"], row.p99_ms, "{:.1f} ms")
    if row.to_echo is None or before["to_echo"] is None:
        return _change(before["rate"]["median"], row.rate.median, "{:,.0f}")
    return _change(before["to_echo"]["median"], row.to_echo.median, "{:.2f}")


def _change(before: float, now: float, form: str) -> tuple[str, str]:
    return form.format(before), f"{100 * (now / before - 1):+.0f} %" if before else "-"


def _verdict(faults: Sequence[str]) -> list[str]:
    if not faults:
        return ["Every call was OK, and the servers counted what ghz saw."]
    return [f"FAILED: {len(faults)} faults", *(f"  {fault}" for fault in faults[:20])]


def _range(spread: Spread) -> str:
    return f"{spread.least:.2f}-{spread.most:.2f}"


def _line(first: str, *others: str) -> str:
    cells = zip(others, (*WIDTHS[1:], 10, 8), strict=False)
    return f"{first:<{WIDTHS[0]}}" + "".join(f" {other:>{width}}" for other, width in cells)
