"""`statekeep doctor`: looks at everything that a server needs, and says what to do."""

import asyncio
import os
from dataclasses import asdict

import typer

from statekeep_server.cli import options
from statekeep_server.cli.connection import Connection, connected
from statekeep_server.cli.errors import FAILED, redact
from statekeep_server.cli.findings import Finding, Health
from statekeep_server.cli.output import Format, console, harmless, print_json, print_table


@connected
def doctor(
    database_url: options.DatabaseUrl = None,
    output: options.Output = Format.TABLE,
    json: options.Json = False,
    *,
    connection: Connection,
) -> None:
    """Check settings, database, files, telemetry and, with --target, a running server.

    Run it where the server runs, with the same environment. Nothing is changed. Fails with 1 when
    there is a problem; a warning alone does not.
    """
    target = connection.target or os.environ.get("STATEKEEP_TARGET")
    found = [
        _without_secrets(each)
        for each in asyncio.run(_examine(database_url, connection.to(target) if target else None))
    ]
    healthy = not any(each.health is Health.PROBLEM for each in found)
    if json or output is Format.JSON:
        print_json({"healthy": healthy, "findings": [asdict(each) for each in found]})
    else:
        print_table(
            ("", "about", "found", "what to do"),
            [(each.health.value, each.about, each.found, each.cure) for each in found],
        )
        console().print("Healthy." if healthy else "There are problems.")
    if not healthy:
        raise typer.Exit(FAILED)


async def _examine(database_url: str | None, server: Connection | None) -> list[Finding]:
    # Late: they import SQLAlchemy and gRPC, which `--help` does not need.
    from statekeep_server.cli.check_outside import check_collector, check_database, check_server
    from statekeep_server.cli.check_settings import check_files, check_settings, check_sqlite_file
    from statekeep_server.storage.checkup import sqlite_path

    settings, found = check_settings(database_url, os.environ)
    if settings is not None:
        found += check_files(settings)
        path = sqlite_path(settings.database_url)
        if path is not None:
            found += check_sqlite_file(path)
        found += await check_database(settings)
    found += await check_collector(os.environ)
    if server is not None:
        found += await check_server(server)
    return found


def _without_secrets(found: Finding) -> Finding:
    """What a server or a driver said is not ours to trust."""
    return Finding(
        about=found.about,
        health=found.health,
        found=redact(harmless(found.found)),
        cure=redact(harmless(found.cure)),
    )
