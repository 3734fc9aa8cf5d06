"""Is the service well, and does the optimized path pay?"""

from collections.abc import Iterator

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Number

from tools.dashboards import shares
from tools.dashboards.panels import (
    NONE_WANTED,
    Query,
    dashboard,
    graph,
    mean,
    number,
    or_none,
    quantile,
    rate_by,
    share_limits,
)

DURATION = "statekeep_save_duration_seconds"


def overview() -> Dashboard:
    """Build it."""
    board = dashboard("overview", "statekeep: overview", __doc__ or "")
    for panel in _figures():
        board.with_panel(panel)
    _what_it_does(board.with_row(Row("What it does")))
    _how_well(board.with_row(Row("How well")))
    return board


def _figures() -> Iterator[Number]:
    yield number("Saves", "Acknowledged saves a second.", shares.SAVES, unit="ops")
    yield number(
        "Skip rate",
        "Share of the acknowledged saves that changed nothing and were not written.",
        shares.SKIP_RATE,
        unit="percentunit",
    )
    yield number(
        "Writes avoided",
        "Rows a second that the skipped saves would have written, four each.",
        shares.WRITES_AVOIDED,
        unit="wps",
    )
    yield number(
        "Fallback rate",
        "Share of the optimized path's work that standard had to do. Nothing is lost by it.",
        shares.FALLBACK_RATE,
        unit="percentunit",
        steps=share_limits(0.01, 0.05),
    )
    yield number(
        "A written save",
        "Mean duration of saves that were persisted.",
        mean(DURATION, 'outcome="PERSISTED"'),
        unit="s",
    )
    yield number(
        "A skipped save",
        "Mean duration of saves that were skipped.",
        mean(DURATION, 'outcome="SKIPPED"'),
        unit="s",
    )
    yield number(
        "Pool use",
        "Connections in use, of those that the fullest pool may open.",
        f"max({shares.POOL_USE})",
        unit="percentunit",
        steps=share_limits(0.7, 0.9),
    )
    yield number(
        "Alerts",
        "Alerts of statekeep that fire now.",
        'count(ALERTS{alertname=~"Statekeep.+", alertstate="firing"}) or vector(0)',
        unit="short",
        steps=NONE_WANTED,
    )


def _what_it_does(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Saves by outcome",
            "Acknowledged saves a second. A skipped save was answered after one read.",
            Query("sum by (outcome) (rate(statekeep_saves_total{$servers}[$rate]))", "{{outcome}}"),
            unit="ops",
            stacked=True,
        )
    )
    board.with_panel(
        graph(
            "Duration of saves",
            "Half of the saves, and 99 of 100, were answered within this time. The axis is "
            "logarithmic.",
            Query(quantile(0.5, DURATION, "outcome"), "{{outcome}} half"),
            Query(quantile(0.99, DURATION, "outcome"), "{{outcome}} 99 %"),
            unit="s",
            dashed="99 %",
            log=True,
        )
    )
    board.with_panel(
        graph(
            "Paths",
            "Acknowledged saves a second by the path that served them. A rollout moves this.",
            Query("sum by (path) (rate(statekeep_saves_total{$servers}[$rate]))", "{{path}}"),
            unit="ops",
            stacked=True,
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Skips and cache",
            "Share of saves that were skipped, and of look-ups in the head cache that found a "
            "head. The cache chooses routes and never answers.",
            Query(shares.SKIP_RATE, "skipped"),
            Query(shares.CACHE_HITS, "found in the cache"),
            unit="percentunit",
            width=8,
            most=1,
        )
    )
    board.with_panel(
        graph(
            "Loads",
            "Answered loads a second by path.",
            Query("sum by (path) (rate(statekeep_loads_total{$servers}[$rate]))", "{{path}}"),
            unit="ops",
            stacked=True,
            width=8,
        )
    )


def _how_well(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Not saved",
            "Saves a second that were refused (the caller is told why) or failed (the server "
            "could not), by reason.",
            Query(
                or_none(rate_by("statekeep_refusals_total", "reason"), "reason"),
                "refused: {{reason}}",
            ),
            Query(
                or_none(rate_by("statekeep_failures_total", "reason"), "reason"),
                "failed: {{reason}}",
            ),
            unit="ops",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Fallbacks",
            "Saves and loads a second that left the optimized path for standard, by the reason of "
            "the first error.",
            Query(or_none(rate_by("statekeep_fallbacks_total", "reason"), "reason"), "{{reason}}"),
            unit="ops",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Waiting",
            "Age of what has waited longest for the next group. More than a second is an alert.",
            Query("max(statekeep_queue_age_seconds{$servers})", "oldest in a queue"),
            unit="s",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Pool use by path",
            "Share of its connections that the fullest pool of each path uses.",
            Query(shares.POOL_USE, "{{path}}"),
            unit="percentunit",
            width=6,
            most=1,
        )
    )
