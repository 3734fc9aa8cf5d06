"""What the servers ask of the database: operations, rows, pools, queues and groups."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from tools.dashboards import shares
from tools.dashboards.panels import (
    NONE_WANTED,
    Query,
    dashboard,
    graph,
    mean_by,
    number,
    or_none,
    quantile,
    rate_by,
    share_limits,
)

OPERATION = "db_client_operation_duration_seconds"
WRITTEN = 'sum(rate(statekeep_saves_total{$servers, outcome="PERSISTED"}[$rate]))'


def database() -> Dashboard:
    """Build it."""
    board = dashboard("database", "statekeep: database", __doc__ or "")
    _figures(board)
    _operations(board.with_row(Row("Operations")))
    _pools(board.with_row(Row("Pools")))
    _groups(board.with_row(Row("Queues and groups")))
    return board


def _figures(board: Dashboard) -> None:
    board.with_panel(
        number(
            "Statements",
            "Statements a second, those that begin and end transactions included.",
            "sum(rate(statekeep_statements_total{$servers}[$rate]))",
            unit="ops",
            width=4,
        )
    )
    board.with_panel(
        number(
            "Statements for each save and load",
            "Groups share statements, so this falls as the load grows.",
            "sum(rate(statekeep_statements_total{$servers}[$rate])) / "
            f"({shares.SAVES} + sum(rate(statekeep_loads_total{{$servers}}[$rate])) > 0)",
            unit="short",
            width=4,
        )
    )
    board.with_panel(
        number(
            "Rows for each written save",
            "Four, and more where expired rows are deleted or batches are large.",
            f"sum(rate(statekeep_rows_written_total{{$servers}}[$rate])) / ({WRITTEN} > 0)",
            unit="short",
            width=4,
        )
    )
    board.with_panel(
        number(
            "Pool use",
            "Connections in use, of those that the fullest pool may open.",
            f"max({shares.POOL_USE})",
            unit="percentunit",
            steps=share_limits(0.7, 0.9),
            width=4,
        )
    )
    board.with_panel(
        number(
            "Oldest in a queue",
            "Age of what has waited longest for the next group.",
            "max(statekeep_queue_age_seconds{$servers})",
            unit="s",
            steps=share_limits(0.25, 1),
            width=4,
        )
    )
    board.with_panel(
        number(
            "Unknown commits",
            "Saves of the last hour whose commit was sent and not answered.",
            "sum(increase(statekeep_commits_unknown_total{$servers}[1h])) or vector(0)",
            unit="short",
            steps=NONE_WANTED,
            width=4,
        )
    )


def _operations(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Duration of operations, 99 %",
            "99 of 100 operations of the store took at most this time, retries included. The axis "
            "is logarithmic.",
            Query(quantile(0.99, OPERATION, "db_operation_name"), "{{db_operation_name}}"),
            unit="s",
            log=True,
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Operations",
            "Operations of the store a second. A group counts once.",
            Query(rate_by(f"{OPERATION}_count", "db_operation_name"), "{{db_operation_name}}"),
            unit="ops",
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Rows written",
            "Rows a second, and those that skipped saves would have written.",
            Query(rate_by("statekeep_rows_written_total", "path"), "{{path}}"),
            Query(shares.WRITES_AVOIDED, "avoided"),
            unit="wps",
            width=8,
        )
    )


def _pools(board: Dashboard) -> None:
    for path in ("OPTIMIZED", "STANDARD"):
        board.with_panel(
            graph(
                f"Connections, {path.lower()}",
                "Connections of this path's pools: in use, open and free, and how many they may "
                "open.",
                Query(
                    f'sum by (state) (statekeep_pool_connections{{$servers, path="{path}"}})',
                    "{{state}}",
                ),
                unit="short",
                width=8,
            )
        )
    board.with_panel(
        graph(
            "Fullest pool",
            "Share of its connections that the fullest pool of a path uses.",
            Query(shares.POOL_USE, "{{path}}"),
            unit="percentunit",
            width=8,
            most=1,
        )
    )


def _groups(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Size of groups",
            "Items that shared a transaction or a statement, on average.",
            Query(mean_by("statekeep_group_size", "group"), "{{group}}"),
            unit="short",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Waiting",
            "Items that wait for the next group.",
            Query("sum by (group) (statekeep_queue_depth{$servers})", "{{group}}"),
            unit="short",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Longest wait",
            "Age of what has waited longest. What is older than a second has a database that "
            "stalls behind it.",
            Query("max by (group) (statekeep_queue_age_seconds{$servers})", "{{group}}"),
            unit="s",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Tried alone",
            "Items a second that were tried alone after the group that held them failed.",
            Query(or_none(rate_by("statekeep_group_retries_total", "group"), "group"), "{{group}}"),
            unit="ops",
            width=6,
        )
    )
