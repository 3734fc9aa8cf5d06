"""The servers beside one another: what they run, how they are switched, what they take."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from tools.dashboards.panels import (
    BLUE,
    GREEN,
    NONE_WANTED,
    RED,
    YELLOW,
    Query,
    Step,
    dashboard,
    graph,
    number,
    or_none,
    rate_by,
    states,
)

DROPPED = (
    (
        "telemetry",
        "spans and exports of metrics that the collector did not take",
        "statekeep_telemetry_dropped_total",
    ),
    (
        "monitoring",
        "events that the monitoring queue had no room for",
        "statekeep_monitoring_dropped_total",
    ),
    ("logs", "log lines that could not be written in time", "statekeep_logs_dropped_total"),
)


def fleet() -> Dashboard:
    """Build it."""
    board = dashboard("fleet", "statekeep: fleet", __doc__ or "")
    _figures(board)
    _switches(board.with_row(Row("Switches")))
    _work(board.with_row(Row("Work")))
    _resources(board.with_row(Row("What it takes")))
    _lost_sight(board.with_row(Row("What operators do not see")))
    return board


def _figures(board: Dashboard) -> None:
    board.with_panel(
        number(
            "Servers",
            "Processes that Prometheus reaches.",
            "count(statekeep_info{$servers})",
            unit="short",
            width=4,
        )
    )
    board.with_panel(
        number(
            "Versions",
            "More than one while servers are being replaced.",
            "count(count by (version) (statekeep_info{$servers}))",
            unit="short",
            steps=(Step(None, GREEN), Step(2, YELLOW)),
            width=4,
        )
    )
    board.with_panel(
        number(
            "Youngest",
            "Time since the server that started last did so.",
            "min(process_uptime_seconds{$servers})",
            unit="s",
            width=4,
        )
    )
    board.with_panel(
        number(
            "Rollout",
            "Share of the runs that the optimized path serves, on the server with the least.",
            "min(statekeep_rollout_ratio{$servers} * statekeep_optimized{$servers})",
            unit="percentunit",
            width=4,
        )
    )
    board.with_panel(
        number(
            "Tripped",
            "Servers that went to standard by themselves. `statekeep rollout reset` sets them "
            "back.",
            "sum(statekeep_tripped{$servers})",
            unit="short",
            steps=NONE_WANTED,
            width=4,
        )
    )
    board.with_panel(
        number(
            "Circuits open",
            "Servers whose optimized path rests after failures, and is tried again by itself.",
            "sum(statekeep_circuit_open{$servers})",
            unit="short",
            steps=NONE_WANTED,
            width=4,
        )
    )


def _switches(board: Dashboard) -> None:
    board.with_panel(
        states(
            "Path",
            "Whether ENABLE_OPTIMIZED_PERSISTENCE holds in each server, whether it tripped, and "
            "whether its circuit is open.",
            Query(
                "statekeep_optimized{$servers}"
                " + 10 * statekeep_tripped{$servers} + 100 * statekeep_circuit_open{$servers}",
                "{{instance}}",
            ),
            words={
                "0": ("standard", BLUE),
                "1": ("optimized", GREEN),
                "10": ("standard, tripped", RED),
                "11": ("tripped", RED),
                "100": ("standard", BLUE),
                "101": ("circuit open", RED),
                "110": ("standard, tripped", RED),
                "111": ("tripped", RED),
            },
        )
    )
    board.with_panel(
        graph(
            "Rollout",
            "Share of the runs that the optimized path serves where it is enabled. All servers "
            "follow within a second.",
            Query("statekeep_rollout_ratio{$servers}", "{{instance}}"),
            unit="percentunit",
            width=6,
            most=1,
        )
    )
    board.with_panel(
        graph(
            "Monitoring and shadow",
            "Servers that write the lines of the monitoring, and that compute the optimized "
            "decision while standard answers.",
            Query("sum(statekeep_monitoring{$servers})", "monitoring"),
            Query("sum(statekeep_shadow{$servers})", "shadow"),
            unit="short",
            width=6,
        )
    )


def _work(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Saves",
            "Acknowledged saves a second.",
            Query(rate_by("statekeep_saves_total", "instance"), "{{instance}}"),
            unit="ops",
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Under way",
            "Saves that were let in and are not answered yet.",
            Query("sum by (instance) (statekeep_saves_under_way{$servers})", "{{instance}}"),
            unit="short",
            width=8,
        )
    )
    board.with_panel(
        graph(
            "Skip rate",
            "Share of the saves that were skipped.",
            Query(
                "sum by (instance) (rate("
                'statekeep_saves_total{$servers, outcome="SKIPPED"}[$rate]))'
                f" / ({rate_by('statekeep_saves_total', 'instance')} > 0)",
                "{{instance}}",
            ),
            unit="percentunit",
            width=8,
            most=1,
        )
    )


def _resources(board: Dashboard) -> None:
    board.with_panel(
        graph(
            "Processor",
            "Cores that each server keeps busy. One process cannot use much more than one.",
            Query(rate_by("process_cpu_time_seconds_total", "instance"), "{{instance}}"),
            unit="short",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Memory",
            "Resident memory of each server.",
            Query("sum by (instance) (process_memory_usage_bytes{$servers})", "{{instance}}"),
            unit="bytes",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Heads in the cache",
            "Entries of each server's head cache.",
            Query("sum by (instance) (statekeep_cache_entries{$servers})", "{{instance}}"),
            unit="short",
            width=6,
        )
    )
    board.with_panel(
        graph(
            "Heads that left it",
            "Entries a second that made room for others, or were forgotten before a write.",
            Query("sum(rate(statekeep_cache_evictions_total{$servers}[$rate]))", "made room"),
            Query("sum(rate(statekeep_cache_invalidations_total{$servers}[$rate]))", "forgotten"),
            unit="ops",
            width=6,
        )
    )


def _lost_sight(board: Dashboard) -> None:
    for name, what, metric in DROPPED:
        board.with_panel(
            graph(
                f"Dropped {name}",
                f"What was dropped a second: {what}. Saves are not affected.",
                Query(or_none(rate_by(metric, "instance"), "instance"), "{{instance}}"),
                unit="ops",
                width=8,
            )
        )
