"""What becomes of saves, and why: decisions, durations, refusals, groups and the shadow."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from tools.dashboards.panels import (
    Query,
    dashboard,
    graph,
    mean_by,
    or_none,
    quantile,
    rate_by,
    spread,
)

DURATION = "statekeep_save_duration_seconds"


def saves() -> Dashboard:
    """Build it."""
    board = dashboard("saves", "statekeep: saves", __doc__ or "")
    _decisions(board.with_row(Row("Decisions")))
    _durations(board.with_row(Row("Durations")))
    _not_saved(board.with_row(Row("What was not saved")))
    _other_ways(board.with_row(Row("Shadow and write-behind")))
    return board


def _decisions(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Decisions",
            "Acknowledged saves a second by the reason of their decision. UNCHANGED is a skip.",
            Query(rate_by("statekeep_decisions_total", "reason"), "{{reason}}"),
            unit="ops",
            stacked=True,
        )
    )
    board.with_panel(
        graph(
            "Skip rate by path",
            "Share of the saves that were skipped. Standard persists everything.",
            Query(
                'sum by (path) (rate(statekeep_saves_total{$servers, outcome="SKIPPED"}[$rate]))'
                " / (" + rate_by("statekeep_saves_total", "path") + " > 0)",
                "{{path}}",
            ),
            unit="percentunit",
            width=6,
            most=1,
        )
    )
    board.with_panel(
        graph(
            "Routes of the cache",
            "Saves a second whose route the head cache chose, and whether the decision agreed. A "
            "wrong route costs a statement, never an answer.",
            Query(rate_by("statekeep_routes_total", "result"), "{{result}}"),
            unit="ops",
            width=6,
        )
    )


def _durations(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Mean duration by path and outcome",
            "The two paths compared. `statekeep ab report` says whether a difference is real. The "
            "axis is logarithmic.",
            Query(mean_by(DURATION, "path", "outcome"), "{{path}} {{outcome}}"),
            unit="s",
            dashed="SKIPPED",
            log=True,
        )
    )
    board.with_panel(
        spread(
            "How durations are spread",
            "Each column is an interval, each row a bucket: its colour says how many saves took so "
            "long.",
            DURATION,
        )
    )
    board.with_panel(
        graph(
            "Calls, 99 %",
            "99 of 100 calls of a method were answered within this time, the network not counted. "
            "The axis is logarithmic.",
            Query(
                quantile(0.99, "rpc_server_call_duration_seconds", "rpc_method"), "{{rpc_method}}"
            ),
            unit="s",
            log=True,
        )
    )
    board.with_panel(
        graph(
            "Calls by status",
            "Calls a second that did not end with OK, and all of them.",
            Query(
                or_none(
                    "sum by (rpc_response_status_code) (rate(rpc_server_call_duration_seconds_count"
                    '{$servers, rpc_response_status_code!="OK"}[$rate]))',
                    "rpc_response_status_code",
                ),
                "{{rpc_response_status_code}}",
            ),
            Query("sum(rate(rpc_server_call_duration_seconds_count{$servers}[$rate]))", "all"),
            unit="ops",
        )
    )


def _not_saved(board: Dashboard) -> None:
    for title, description, metric in (
        (
            "Refusals",
            "Saves a second that were refused: the caller has to change something, or to wait.",
            "statekeep_refusals_total",
        ),
        (
            "Failures",
            "Saves a second that failed for good. The caller may try again with the same request "
            "id.",
            "statekeep_failures_total",
        ),
        (
            "Fallbacks",
            "Saves and loads a second that standard did because the optimized path could not.",
            "statekeep_fallbacks_total",
        ),
    ):
        board.with_panel(
            graph(
                title,
                description,
                Query(or_none(rate_by(metric, "reason"), "reason"), "{{reason}}"),
                unit="ops",
                width=8,
            )
        )


def _other_ways(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Shadow",
            "What the optimized path would have made of saves that standard persisted, a second. "
            "A disagreement would have skipped a change.",
            Query(
                or_none(rate_by("statekeep_shadow_decisions_total", "outcome"), "outcome"),
                "{{outcome}}",
            ),
            Query(
                "sum(rate(statekeep_shadow_disagreements_total{$servers}[$rate])) or vector(0)",
                "disagreements",
            ),
            unit="ops",
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Write-behind",
            "What became of buffered saves, a second. LOST is what a caller was not promised and "
            "did not get.",
            Query(
                or_none(rate_by("statekeep_write_behind_saves_total", "result"), "result"),
                "{{result}}",
            ),
            unit="ops",
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Buffered",
            "Age of the oldest buffered save.",
            Query("max(statekeep_write_behind_age_seconds{$servers}) or vector(0)", "oldest"),
            unit="s",
            width=8,
        )
    )
