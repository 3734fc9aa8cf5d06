"""`statekeep stats`: what a server did since it started, or what it is doing now."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statekeep_server.cli import options
from statekeep_server.cli.connection import Connection, ask, connected
from statekeep_server.cli.output import Format, print_facts, print_json, print_table
from statekeep_server.cli.watch import kpi_facts, watch_stats
from statekeep_server.service.kpis import kpis

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import ServerStats, WorkerStats


@connected
def stats(
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, and show what happens between.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", help="With --watch: how often.", min=0.1)
    ] = 2.0,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", help="With --watch: stop after so many.", min=1),
    ] = None,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Count what the server did since it started: saves, skips, writes, cache, pools."""
    if watch:
        watch_stats(connection, output, every_s=every, count=count)
        return
    counted = ask(connection, lambda client: client.stats())
    if output is Format.JSON:
        figures = kpis(counted.paths, counted.cache, counted.pools)
        print_json({**asdict(counted), "kpis": asdict(figures)})
    else:
        _print_stats(counted)
        _print_write_behind(counted)


def _print_stats(counted: "ServerStats") -> None:
    print_table(
        (
            "path",
            "saves",
            "persisted",
            "skipped",
            "skipped %",
            "rows written",
            "statements",
            "persisted ms",
            "skipped ms",
            "loads",
        ),
        [
            (
                path.path,
                path.saves,
                path.persisted,
                path.skipped,
                100 * path.skipped / path.saves if path.saves else None,
                path.rows_written,
                path.statements,
                path.persisted_mean_s * 1_000 if path.persisted else None,
                path.skipped_mean_s * 1_000 if path.skipped else None,
                path.loads,
            )
            for path in counted.paths
        ],
        title=f"Since {counted.started_at:%Y-%m-%d %H:%M:%S}Z",
        right=(
            "saves",
            "persisted",
            "skipped",
            "skipped %",
            "rows written",
            "statements",
            "persisted ms",
            "skipped ms",
            "loads",
        ),
    )
    for title, name in (
        ("Decisions", "decisions"),
        ("Failures", "failures"),
        ("Fallbacks", "fallbacks"),
    ):
        rows = [
            (path.path, word, count)
            for path in counted.paths
            for word, count in sorted(getattr(path, name).items())
        ]
        if rows:
            print_table(("path", "reason", "saves"), rows, title=title, right=("saves",))
    print_facts(
        [
            ("unknown checkpoint types", counted.unknown_checkpoint_types),
            ("circuit open", counted.circuit_open),
            ("workers summed", len(counted.workers)),
            ("workers silent", counted.silent_workers),
            ("monitoring lines dropped", counted.monitoring.dropped),
            ("log lines dropped", counted.log.dropped),
        ]
    )
    _print_workers(counted.workers)
    _print_trips(counted)
    print_facts(kpi_facts(kpis(counted.paths, counted.cache, counted.pools)), title="\nKPIs")
    _print_shadow(counted)
    print_facts(named(asdict(counted.cache)), title="\nHead cache")
    print_pools(counted.pools)


def _print_workers(workers: "tuple[WorkerStats, ...]") -> None:
    if len(workers) > 1:
        print_table(
            ("worker", "process", "started", "saves"),
            [
                (worker.index, worker.process_id, worker.started_at, worker.saves)
                for worker in workers
            ],
            title="Workers",
            right=("saves",),
        )


def _print_shadow(counted: "ServerStats") -> None:
    shadow = counted.shadow
    persisted = sum(shadow.would_persist.values())
    if not shadow.would_skip + persisted:
        return
    print_facts(
        [
            ("would skip", shadow.would_skip),
            ("would persist", persisted),
            ("would skip %", 100 * shadow.would_skip / (shadow.would_skip + persisted)),
            ("rows avoided", shadow.rows_avoided),
            ("disagreements", shadow.disagreements),
            ("routes right", shadow.routes_right),
            ("routes wrong", shadow.routes_wrong),
        ],
        title="\nShadow",
    )


def _print_write_behind(counted: "ServerStats") -> None:
    facts = asdict(counted.write_behind)
    declined = facts.pop("declined")
    if not counted.write_behind.buffered + sum(declined.values()):
        return
    durable = [(f"durable {reason}", count) for reason, count in sorted(declined.items())]
    print_facts([*named(facts), *durable], title="\nWrite-behind")


def _print_trips(counted: "ServerStats") -> None:
    rows = [
        (worker.index, trip.at, trip.crossed, trip.value, trip.limit, trip.saves)
        for worker in counted.workers
        if (trip := worker.trip) is not None
    ]
    if rows:
        print_table(
            ("worker", "at", "crossed", "value", "limit", "saves"),
            rows,
            title="Tripped: standard serves until `statekeep rollout reset`",
            right=("value", "limit", "saves"),
        )


def print_pools(pools: tuple[Any, ...]) -> None:
    """Print the connection pools, if there are any."""
    if not pools:
        return
    headers = ("path", "size", "overflow", "timeout s", "in use", "idle")
    rows = [
        (
            pool.path,
            pool.pool_size,
            pool.max_overflow,
            pool.pool_timeout_s,
            pool.checked_out,
            pool.idle,
        )
        for pool in pools
    ]
    print_table(headers, rows, title="Connection pools", right=headers[1:])


def named(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Name facts as people read them."""
    return [(name.replace("_", " "), value) for name, value in values.items()]
