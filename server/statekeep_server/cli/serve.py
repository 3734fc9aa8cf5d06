"""`statekeep serve` and `statekeep migrate`: the commands that open the database themselves."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from statekeep_server.cli import serve_options as options
from statekeep_server.cli.ending import FORCED_CODE, bounded_end
from statekeep_server.cli.errors import (
    FAILED,
    UNREACHABLE,
    WRONG_USAGE,
    CommandFailed,
    failing_politely,
    say,
)
from statekeep_server.cli.options import DatabaseUrl, Output
from statekeep_server.cli.output import Format, console, print_json, tell_anybody
from statekeep_server.cli.settings import (
    ServeOptions,
    read_database_url,
    read_options,
)
from statekeep_server.domain.errors import InvalidField, SchemaMismatch, StateError
from statekeep_server.telemetry.process_log import logging_to_stderr

if TYPE_CHECKING:  # it brings gRPC, which `--help` does not need
    from statekeep_server.config import Settings
    from statekeep_server.transport.server import RunningServer


def serve(
    host: options.Host = None,
    port: options.Port = None,
    database_url: DatabaseUrl = None,
    token: options.ServerToken = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    insecure: options.ServeInsecure = None,
    allow_unsafe_durability: options.AllowUnsafeDurability = None,
    trust_tenant_metadata: options.TrustTenantMetadata = None,
    max_skip_age: options.MaxSkipAge = None,
    max_skips: options.MaxSkips = None,
    compression: options.Compression = None,
    ignored_field: options.IgnoredField = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
    metrics_port: options.MetricsPort = None,
    port_file: options.PortFile = None,
    workers: options.Workers = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    With nothing configured, states are kept in a SQLite file in the user's data folder.
    ENABLE_OPTIMIZED_PERSISTENCE=true in the environment makes unchanged automatic saves cost
    nothing; without it every save is persisted.
    """
    with failing_politely():
        options = read_options(
            {
                "host": host,
                "port": port,
                "database_url": database_url,
                "token": token,
                "tls_certificate_path": tls_cert,
                "tls_key_path": tls_key,
                "insecure": insecure,
                "allow_unsafe_durability": allow_unsafe_durability,
                "trust_tenant_metadata": trust_tenant_metadata,
                "max_skip_age_s": max_skip_age,
                "max_skips": max_skips,
                "compression": compression,
                "metrics_port": metrics_port,
                "ignored_fields": ignored_field,
                "log_level": log_level,
                "log_format": log_format,
                "workers": workers,
            },
            os.environ,
        )
        _run(options, port_file)


def migrate(database_url: DatabaseUrl = None, output: Output = Format.TABLE) -> None:
    """Bring the database's schema up to date. Doing it twice does no harm.

    `serve` does this by itself for SQLite, and only checks it for PostgreSQL.
    """
    # Late: they import SQLAlchemy and Alembic.
    from statekeep_server.storage.migrate import migrate as bring_up_to_date

    with failing_politely():
        url = read_database_url(database_url, os.environ)
        try:
            migrated = asyncio.run(bring_up_to_date(url))
        except StateError as error:
            raise _cannot_use_database(error) from None
        if output is Format.JSON:
            print_json(asdict(migrated))
        elif migrated.found == migrated.reached:
            console().print(f"The schema was up to date: revision {migrated.reached}.")
        else:
            before = migrated.found or "nothing"
            console().print(f"Migrated from {before} to revision {migrated.reached}.")


def _run(options: ServeOptions, port_file: Path | None) -> None:
    for name in options.unknown_variables:
        say(f"nothing reads the variable {name}", label="warning")

    def tell(port: int) -> None:
        if port_file is not None:
            write_whole(port_file, str(port))
        settings = options.settings
        with_workers = "" if settings.workers == 1 else f", {settings.workers} workers"
        tell_anybody(f"statekeep serves on {settings.host}:{port}{with_workers}, Ctrl-C stops it")

    with logging_to_stderr(options.log_level, options.log_format):
        if options.settings.workers == 1:
            _run_here(options.settings, tell)
        else:
            _run_workers(options, tell)


def _run_here(settings: "Settings", tell: Callable[[int], None]) -> None:
    """Serve in this process."""
    # Late: they import gRPC and SQLAlchemy.
    import uvloop

    from statekeep_server.app import run_server

    def on_ready(running: "RunningServer") -> None:
        tell(running.port)

    with serving_errors(), bounded_end(settings.drain_timeout_s) as stopping:
        try:
            uvloop.run(run_server(settings, on_ready=on_ready, on_stopping=stopping))
        except asyncio.CancelledError:  # a second signal cut the drain short
            raise typer.Exit(FORCED_CODE) from None


def _run_workers(options: ServeOptions, tell: Callable[[int], None]) -> None:
    """Serve in processes of their own, and supervise them in this one."""
    # Late: `--help` does not need them.
    import uvloop

    from statekeep_server.cli.worker import COMMAND
    from statekeep_server.supervisor.port import CannotSupervise
    from statekeep_server.supervisor.supervise import Stopped, WorkersFailed, run_workers

    try:
        stopped = uvloop.run(
            run_workers(
                options.settings,
                command=COMMAND,
                log_level=options.log_level,
                log_format=options.log_format,
                on_ready=tell,
            )
        )
    except CannotSupervise as error:
        raise CommandFailed(str(error), code=WRONG_USAGE) from None
    except WorkersFailed as error:
        ended = error.ended
        raise CommandFailed(ended.error, code=ended.code, hint=ended.hint) from None
    if stopped is not Stopped.DRAINED:
        raise typer.Exit(FORCED_CODE if stopped is Stopped.FORCED else FAILED)


@contextmanager
def serving_errors() -> Iterator[None]:
    """Turn what keeps a server from serving into the error of a command."""
    from statekeep_server.transport.listen import CannotServe  # late: it imports gRPC

    try:
        yield
    except CannotServe as error:
        raise CommandFailed(str(error), code=WRONG_USAGE) from None
    except StateError as error:
        raise _cannot_use_database(error) from None


def _cannot_use_database(error: StateError) -> CommandFailed:
    if isinstance(error, SchemaMismatch):
        return CommandFailed(error.message, code=UNREACHABLE, hint="run `statekeep migrate`")
    code = WRONG_USAGE if isinstance(error, InvalidField) else UNREACHABLE
    return CommandFailed(error.message, code=code)


def write_whole(path: Path, text: str) -> None:
    """Write a file that readers see whole or not at all."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text)
    unfinished.replace(path)
