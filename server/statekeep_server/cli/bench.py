"""`statekeep bench`: record the demo agent's work, replay recorded work, compare both paths.

`bench load` has a module of its own, `bench_load`.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statekeep_server.cli import options
from statekeep_server.cli.bench_load import load_command
from statekeep_server.cli.connection import Connection
from statekeep_server.cli.errors import (
    FAILED,
    UNREACHABLE,
    WRONG_USAGE,
    CommandFailed,
    failing_politely,
)
from statekeep_server.cli.output import Format, console, print_json, print_table
from statekeep_server.cli.progress import Bar, progress_bar
from statekeep_server.cli.running import run_to_end
from statekeep_server.cli.settings import parse_database_url

if TYPE_CHECKING:  # they bring gRPC, which `--help` does not need
    from statekeep_server.bench.campaign import Campaign
    from statekeep_server.bench.figures import Figures
    from statekeep_server.bench.trajectories import Trajectory

SHOWN_DIFFERENCES = 10

app = typer.Typer(
    help="Measure what skipping saves on recorded work, and how much a server takes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


Recording = Annotated[
    Path, typer.Argument(metavar="FILE", help="FILE.jsonl.gz, as recorded.", show_default=False)
]
OnTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="Replay on this running server, on the one path that it serves. Without it two "
        "private servers are started, one for each path.",
    ),
]
OnDatabase = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="The private servers' database instead of a new SQLite file. Bring its schema up to "
        "date first (`statekeep migrate`).",
    ),
]
FirstRuns = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Only the first N runs.", min=1)
]
AtOnce = Annotated[
    int,
    typer.Option("--concurrency", metavar="N", help="Runs under way at once.", min=1, max=256),
]


app.command("load")(load_command)


@app.command("record")
def record_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Written: FILE.jsonl.gz.", show_default=False)
    ],
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", help="How many agents work.", min=1)
    ] = 40,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="How many messages each run has.", min=8)
    ] = 40,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", help="Equal seeds give equal files.")
    ] = 1,
    output: options.Output = Format.TABLE,
) -> None:
    """Record the demo agent's own work, one conversation a line."""
    # Late: `--help` needs no agent.
    from statekeep_server.bench.record import record
    from statekeep_server.bench.trajectories import write_trajectories

    with failing_politely():
        try:
            with progress_bar() as bar:
                bar.stage("The agents work", runs)
                written = write_trajectories(
                    file, _counted(bar, record(runs=runs, steps=steps, seed=seed))
                )
        except OSError as error:
            raise CommandFailed(
                f"cannot write {file}: {error.strerror}", code=WRONG_USAGE
            ) from None
        size = file.stat().st_size
        if output is Format.JSON:
            print_json({"file": str(file), "trajectories": written, "bytes": size})
        else:
            console().print(f"{written} runs of {steps} messages: {file}, {size:,} bytes.")


@app.command("replay")
def replay_command(
    file: Recording,
    target: OnTarget = None,
    token: options.Token = None,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    insecure: options.Insecure = False,
    database_url: OnDatabase = None,
    limit: FirstRuns = None,
    concurrency: AtOnce = 8,
    output: options.Output = Format.TABLE,
) -> None:
    """Replay recorded work as two checkpoint streams, and compare both paths.

    `around` checkpoints before and after each step, `after` only after it. Every answer is
    compared with that of a naive oracle, and every run is loaded again at the end; the command
    fails if one answer is wrong or one state is lost.
    """
    # Late: `--help` needs no benchmark.
    from statekeep_server.bench.replay import CannotJudge
    from statekeep_server.bench.server_process import ServerDidNotStart
    from statekeep_server.bench.trajectories import TrajectoryError, read_trajectories

    with failing_politely():
        if target and database_url:
            raise CommandFailed(
                "--database-url is for private servers: leave it or --target out",
                code=WRONG_USAGE,
            )
        connection = Connection(
            target=target, token=token, tls_ca=tls_ca, tls=tls, insecure=insecure, timeout_s=60.0
        )
        try:
            trajectories = read_trajectories(file, limit=limit)
            if database_url:
                parse_database_url(database_url)
            with progress_bar() as bar:
                campaign = _replay(trajectories, connection, database_url, concurrency, bar)
        except TrajectoryError as error:
            raise CommandFailed(str(error), code=WRONG_USAGE) from None
        except ValueError as error:
            raise CommandFailed(f"--database-url: {error}", code=WRONG_USAGE) from None
        except ServerDidNotStart as error:
            raise CommandFailed(
                f"the private server did not start: {error}", code=UNREACHABLE
            ) from None
        except CannotJudge as error:
            raise CommandFailed(str(error)) from None
        if output is Format.JSON:
            print_json({"file": file.name, **campaign.to_json()})
        else:
            _print(campaign)
        _complain(campaign)


def _counted(bar: Bar, trajectories: Iterable["Trajectory"]) -> Iterator["Trajectory"]:
    for trajectory in trajectories:
        yield trajectory
        bar.advance()


def _replay(
    trajectories: tuple["Trajectory", ...],
    connection: Connection,
    database_url: str | None,
    concurrency: int,
    bar: Bar,
) -> "Campaign":
    from statekeep_server.bench.campaign import replay_on_target, replay_privately

    async def on_target() -> "Campaign":
        async with connection.client() as client:
            return await replay_on_target(
                client,
                trajectories,
                concurrency=concurrency,
                on_stage=bar.stage,
                on_save=bar.advance,
            )

    if connection.target:
        return run_to_end(on_target())
    with tempfile.TemporaryDirectory(prefix="statekeep-bench-") as folder:
        return run_to_end(
            replay_privately(
                trajectories,
                Path(folder),
                database_url=database_url,
                concurrency=concurrency,
                on_stage=bar.stage,
                on_save=bar.advance,
            )
        )


def _print(campaign: "Campaign") -> None:
    for name, paths in campaign.figures.items():
        rows = [
            (label, *(read(figures) for figures in paths.values()))
            for label, read in _rows(paths.values())
        ]
        print_table((f"stream `{name}`", *paths), rows, right=tuple(paths))
    for name, less in campaign.comparison().items():
        parts = [
            _change(less["snapshots_fewer_percent"], "fewer", "more", "snapshots"),
            _change(less["rows_fewer_percent"], "fewer", "more", "rows"),
            _change(less["statements_fewer_percent"], "fewer", "more", "statements"),
            _change(less["mean_duration_lower_percent"], "less", "more", "time a save"),
        ]
        console().print(f"`{name}` on the optimized path: {', '.join(parts)}.")
    saves = sum(each.saves for paths in campaign.figures.values() for each in paths.values())
    console().print(
        f"{campaign.trajectories} runs of {campaign.messages:,} messages. The oracle judged "
        f"{saves:,} answers: {len(campaign.differences)} differences. "
        f"Lost: {len(campaign.lost_runs)}."
    )


def _rows(paths: Iterable["Figures"]) -> Iterator[tuple[str, Callable[["Figures"], Any]]]:
    """The labels of a table and how each is read; reasons as far as they came up."""
    figures = list(paths)
    yield "saves", attrgetter("saves")
    for label, by_reason, total in (
        ("persisted", "persisted_by_reason", "persisted"),
        ("skipped", "skipped_by_reason", "skipped"),
    ):
        yield label, attrgetter(total)
        for reason in sorted({name for each in figures for name in getattr(each, by_reason)}):
            yield f"  {reason}", partial(_reason, by_reason, reason)
    for label, name in (
        ("rows written", "rows_written"),
        ("statements sent", "statements"),
        ("mean ms", "mean_ms"),
        ("p99 ms", "p99_ms"),
        ("mean ms, persisted", "saved_mean_ms"),
        ("p99 ms, persisted", "saved_p99_ms"),
        ("mean ms, skipped", "skipped_mean_ms"),
        ("p99 ms, skipped", "skipped_p99_ms"),
    ):
        yield label, attrgetter(name)


def _reason(by_reason: str, reason: str, figures: "Figures") -> int | None:
    counts: Mapping[str, int] = getattr(figures, by_reason)
    return counts.get(reason)


def _change(lower_percent: float, lower: str, higher: str, what: str) -> str:
    return f"{abs(lower_percent):.1f} % {lower if lower_percent >= 0 else higher} {what}"


def _complain(campaign: "Campaign") -> None:
    """Fail unless every answer was right and nothing was lost, and name the first that were not."""
    if campaign.good:
        return
    first = [
        f"{each.run_id}, save {each.save}: {each.problem}"
        for each in campaign.differences[:SHOWN_DIFFERENCES]
    ]
    first += [f"{run_id}: lost" for run_id in campaign.lost_runs[:SHOWN_DIFFERENCES]]
    raise CommandFailed(
        f"{len(campaign.differences)} wrong answers, {len(campaign.lost_runs)} lost states; "
        f"first: {'; '.join(first)}",
        code=FAILED,
    )
