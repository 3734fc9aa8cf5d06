"""Commands that look at a running server: its runs, their history, its numbers."""

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from statekeep_server.cli import options
from statekeep_server.cli.connection import Connection, ask, connected
from statekeep_server.cli.errors import WRONG_USAGE, CommandFailed
from statekeep_server.cli.output import Format, console, print_facts, print_json, print_table
from statekeep_server.cli.stats import named, print_pools

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import AsyncClient, LoadedState

T = TypeVar("T")


@connected
def history(
    run: options.Run,
    limit: options.Limit = 50,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """List the snapshots of a run, newest first."""

    async def question(client: "AsyncClient") -> list[Any]:
        return await _take(client.list_snapshots(run, page_size=min(limit, 1_000)), limit)

    snapshots = ask(connection, question)
    if output is Format.JSON:
        print_json({"run_id": run, "snapshots": [asdict(each) for each in snapshots]})
        return
    if not snapshots:
        raise CommandFailed(f"run {run!r} has no live snapshot")
    print_table(
        ("version", "persisted at", "type", "phase", "recovery", "bytes", "snapshot"),
        [
            (
                each.version,
                each.persisted_at,
                each.checkpoint_type,
                each.agent_phase,
                each.is_recovery_point,
                each.state_bytes,
                each.snapshot_id,
            )
            for each in snapshots
        ],
        right=("version", "bytes"),
    )


@connected
def show(
    run: options.Run,
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="This version instead of the newest.", min=1),
    ] = None,
    snapshot_id: Annotated[
        str | None,
        typer.Option("--snapshot-id", metavar="ID", help="This snapshot instead of the newest."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the state's bytes as they were saved, no more.")
    ] = False,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Show a state of a run: the newest, or the one with a version or a snapshot id."""

    async def question(client: "AsyncClient") -> "LoadedState[Any]":
        # Decoded here: a state that is no JSON, or JSON of another kind, is shown all the same.
        return await client.load(run, version=version, snapshot_id=snapshot_id)

    if version is not None and snapshot_id is not None:
        raise CommandFailed("give --version or --snapshot-id, not both", code=WRONG_USAGE)
    loaded = ask(connection, question)
    if raw:
        sys.stdout.buffer.write(loaded.data)
        sys.stdout.buffer.flush()
        return
    is_json = not isinstance(loaded.state, bytes)
    if output is Format.JSON:
        shown = json.loads(loaded.data) if is_json else None
        print_json(
            {
                "snapshot": asdict(loaded.snapshot),
                "head_version": loaded.head_version,
                "state": shown,
            }
            | ({} if is_json else {"state_hex": loaded.data})
        )
        return
    facts = {**asdict(loaded.snapshot), "head_version": loaded.head_version}
    print_facts((name.replace("_", " "), value) for name, value in facts.items())
    if is_json:
        sys.stdout.write("\n")
        print_json(json.loads(loaded.data))
    else:
        console().print(f"\n{len(loaded.data)} bytes that are no JSON; --raw writes them.")


@connected
def runs(
    thread: Annotated[
        str, typer.Option("--thread", metavar="ID", help="Only runs of this thread.")
    ] = "",
    user: Annotated[str, typer.Option("--user", metavar="ID", help="Only runs of this user.")] = "",
    limit: options.Limit = 50,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """List runs by their newest write, newest first."""

    async def question(client: "AsyncClient") -> list[Any]:
        found = client.list_runs(thread_id=thread, user_id=user, page_size=min(limit, 1_000))
        return await _take(found, limit)

    found = ask(connection, question)
    if output is Format.JSON:
        print_json({"runs": [asdict(each) for each in found]})
        return
    print_table(
        ("run", "version", "persisted at", "thread", "user", "snapshot"),
        [
            (
                each.run_id,
                each.version,
                each.persisted_at,
                each.thread_id,
                each.user_id,
                each.snapshot_id,
            )
            for each in found
        ],
        right=("version",),
    )


@connected
def delete(
    run: options.Run,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Delete every snapshot of a run. This cannot be undone."""
    if not yes:
        if not sys.stdin.isatty():
            raise CommandFailed("nobody can be asked here: say --yes", code=WRONG_USAGE)
        typer.confirm(f"Delete every snapshot of run {run!r}?", abort=True, err=True)
    deleted = ask(connection, lambda client: client.delete_run(run))
    if output is Format.JSON:
        print_json({"run_id": run, "deleted_snapshots": deleted})
    else:
        console().print(f"Deleted {deleted} snapshots of run {run!r}.")


@connected
def info(
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Say what the server is: version, path, database, limits, skip rules, pools."""
    about = ask(connection, lambda client: client.server_info())
    if output is Format.JSON:
        print_json(asdict(about))
        return
    print_facts([("version", about.version), ("path", about.path), ("database", about.database)])
    print_facts(named(asdict(about.skip_rules)), title="\nSkip rules")
    print_facts(named(asdict(about.limits)), title="\nLimits")
    print_pools(about.pools)


async def _take(found: AsyncIterator[T], limit: int) -> list[T]:
    """The first of many; more pages are not fetched."""
    taken: list[T] = []
    async for each in found:
        taken.append(each)
        if len(taken) == limit:
            break
    return taken
