"""`statekeep demo`: an agent survives a crash while half of its saves cost nothing."""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from statekeep_server.cli import options
from statekeep_server.cli.errors import (
    UNREACHABLE,
    WRONG_USAGE,
    CommandFailed,
    failing_politely,
)
from statekeep_server.cli.output import Format, console, print_json, print_table
from statekeep_server.cli.progress import progress_bar
from statekeep_server.cli.running import run_to_end

if TYPE_CHECKING:  # it brings gRPC, which `--help` does not need
    from statekeep_server.bench.demo import DemoReport


def demo(
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="How many steps the agent takes.", min=40)
    ] = 240,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Makes the agent's day.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            help="Keep the database, the journal and the logs here; else they are removed.",
        ),
    ] = None,
    output: options.Output = Format.TABLE,
) -> None:
    """Watch an agent survive a crash while nearly half of its saves cost nothing.

    A server on the embedded database and an agent are started, both are killed with SIGKILL
    halfway, and both are started again. Then the demo proves that nothing acknowledged was lost,
    and fails if it cannot.
    """
    # Late: `--help` needs no agent.
    from statekeep_server.bench.demo import AgentFailed, Watcher, run_demo
    from statekeep_server.bench.server_process import ServerDidNotStart

    with failing_politely():
        try:
            if folder is not None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = (
                tempfile.TemporaryDirectory(prefix="statekeep-demo-")
                if folder is None
                else nullcontext(str(folder))
            )
            with place as name, progress_bar() as bar:
                watcher = Watcher(stage=bar.tell, acknowledged=bar.reached)
                report = run_to_end(run_demo(Path(name), seed=seed, steps=steps, watcher=watcher))
        except ServerDidNotStart as error:
            raise CommandFailed(
                f"the demo's server did not start: {error}", code=UNREACHABLE
            ) from None
        except AgentFailed as error:
            raise CommandFailed(f"the demo's agent failed: {error}") from None
        except OSError as error:
            raise CommandFailed(
                f"cannot use {error.filename}: {error.strerror}", code=WRONG_USAGE
            ) from None
        if output is Format.JSON:
            print_json(report.to_json())
        else:
            _print(report, folder)
        if not report.good:
            raise CommandFailed("the proof failed")


def _print(report: "DemoReport", folder: Path | None) -> None:
    print_table(
        ("an agent's work, killed halfway", ""),
        [
            ("steps of the agent", report.steps),
            ("server and agent killed at step", report.killed_at_step),
            ("saves asked", report.asked),
            ("persisted", report.persisted),
            ("skipped", f"{report.skipped} ({report.skipped_percent:.1f} %)"),
            (
                "database writes avoided",
                f"{report.rows_avoided} rows ({report.rows_written_per_save:.1f} a persisted save)",
            ),
            ("time per persisted save", f"{report.persisted_mean_ms:.1f} ms"),
            ("time per skipped save", f"{report.skipped_mean_ms:.1f} ms"),
        ],
        right=("",),
    )
    for proof in report.proofs:
        console().print(f"{'proved' if proof.holds else 'FAILED'}: {proof.claim}", style="bold")
        console().print(f"        {proof.evidence}")
    console().print(f"\nThe agent's answer: {report.answer.splitlines()[0]}")
    if folder is not None:
        console().print(
            f"\nLook at it: statekeep serve --database-url sqlite:///{folder.absolute()}"
            f"/statekeep.db, then statekeep history {report.run_id}"
        )
