"""The `statekeep` command: what its subcommands are and where they live."""

from typing import Annotated

import typer

from statekeep_server import __version__
from statekeep_server.cli import ab, bench, demo, doctor, flags, health, serve, stats, views

app = typer.Typer(
    name="statekeep",
    help="Keeps the state of AI agents: durable, and at a fraction of the writes.",
    no_args_is_help=True,
    # Frames could hold states, tokens and passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(serve.migrate)
app.command()(views.runs)
app.command()(views.history)
app.command()(views.show)
app.command()(views.delete)
app.command()(views.info)
app.command()(stats.stats)
app.command()(health.health)
app.command()(doctor.doctor)
app.command()(flags.rollout)
app.add_typer(flags.app, name="flags")
app.add_typer(ab.app, name="ab")
app.command()(demo.demo)
app.add_typer(bench.app, name="bench")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"statekeep {__version__}")
        raise typer.Exit


@app.callback()
def statekeep(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keeps the state of AI agents: durable, and at a fraction of the writes."""
