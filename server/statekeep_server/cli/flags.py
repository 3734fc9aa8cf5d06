"""`statekeep flags` and `statekeep rollout`: switches of the whole fleet, without a restart.

Every server follows a change within a second. A server whose environment says `false` keeps to
that, and these commands warn when the one that answers does.
"""

import getpass
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statekeep_server.cli import options
from statekeep_server.cli.connection import Connection, ask, connected
from statekeep_server.cli.errors import WRONG_USAGE, CommandFailed, say
from statekeep_server.cli.output import Format, console, print_facts, print_json, print_table
from statekeep_server.domain.model import DEFAULT_TENANT
from statekeep_server.flags import ENABLE, ROLLOUT, parse_percent

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import AsyncClient, FlagChange, FlagList

app = typer.Typer(
    name="flags",
    help="Show and change the flags of the fleet, without a restart.",
    no_args_is_help=True,
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="For example LOG_LEVEL.", show_default=False)
]
Value = Annotated[
    str,
    typer.Argument(metavar="VALUE", help="A switch, a percentage or a level.", show_default=False),
]
Tenant = Annotated[
    str, typer.Option("--tenant", metavar="ID", help="Only for this tenant instead of the fleet.")
]
OfRun = Annotated[
    str,
    typer.Option(
        "--run", metavar="ID", help=f"Only for this run, of --tenant or `{DEFAULT_TENANT}`."
    ),
]
By = Annotated[
    str, typer.Option("--by", metavar="WHO", help="For the history. [USER@HOST of this command]")
]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expected-version",
        metavar="N",
        help="Only if the flag has this version; 0: unset.",
        min=0,
    ),
]


@app.command()
@connected
def show(output: options.Output = Format.TABLE, *, connection: Connection) -> None:
    """Show what is set, and what holds in the server that answers."""
    _show(ask(connection, lambda client: client.flags()), output)


@app.command("set")
@connected
def set_(
    name: Name,
    value: Value,
    tenant: Tenant = "",
    run: OfRun = "",
    by: By = "",
    expected_version: Expected = None,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Set a flag for the fleet, a tenant or a run."""

    async def question(client: "AsyncClient") -> "tuple[FlagChange, FlagList]":
        change = await client.set_flag(
            name,
            value,
            tenant=_tenant(tenant, run),
            run_id=run,
            changed_by=by or _who(),
            expected_version=expected_version,
        )
        return change, await client.flags()

    change, found = ask(connection, question)
    _tell([change], found, output)


@app.command()
@connected
def unset(
    name: Name,
    tenant: Tenant = "",
    run: OfRun = "",
    by: By = "",
    expected_version: Expected = None,
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Take a flag away: what is less special holds again, at last each server's environment."""

    async def question(client: "AsyncClient") -> "tuple[FlagChange, FlagList]":
        change = await client.unset_flag(
            name,
            tenant=_tenant(tenant, run),
            run_id=run,
            changed_by=by or _who(),
            expected_version=expected_version,
        )
        return change, await client.flags()

    change, found = ask(connection, question)
    _tell([change], found, output)


@app.command()
@connected
def history(
    limit: options.Limit = 50, output: options.Output = Format.TABLE, *, connection: Connection
) -> None:
    """List who changed which flag, from what to what, newest first."""

    async def question(client: "AsyncClient") -> "list[FlagChange]":
        taken: list[FlagChange] = []
        async for change in client.list_flag_changes(page_size=min(limit, 1_000)):
            taken.append(change)
            if len(taken) == limit:
                break
        return taken

    changes = ask(connection, question)
    if output is Format.JSON:
        print_json({"changes": [asdict(each) for each in changes]})
    else:
        _print_changes(changes)


@connected
def rollout(
    share: Annotated[
        str,
        typer.Argument(
            metavar="SHARE",
            help="`10%`, `on` (all runs), `off`, `status`, or `reset` after a trip.",
            show_default=False,
        ),
    ],
    tenant: Tenant = "",
    run: OfRun = "",
    by: By = "",
    output: options.Output = Format.TABLE,
    *,
    connection: Connection,
) -> None:
    """Serve a share of the runs by the optimized path, at once and in the whole fleet.

    A run keeps its place: a higher share only adds runs, and a lower one takes the last ones away.
    """
    word = share.strip().lower()
    if word == "status":
        _show(ask(connection, lambda client: client.flags()), output)
        return
    if word == "reset":
        _tell(*ask(connection, lambda client: _reset(client, by or _who())), output)
        return
    steps = _steps(word, run)

    async def question(client: "AsyncClient") -> "tuple[list[FlagChange], FlagList]":
        changes = [
            await client.set_flag(
                name, value, tenant=_tenant(tenant, run), run_id=run, changed_by=by or _who()
            )
            for name, value in steps
        ]
        return changes, await client.flags()

    _tell(*ask(connection, question), output)


async def _reset(client: "AsyncClient", who: str) -> "tuple[list[FlagChange], FlagList]":
    """Say again what is said about the optimized path: servers that tripped take it as a word.

    Somebody who changes the flag meanwhile has looked too: then this fails, and nothing is lost.
    """
    stored = [
        flag
        for flag in (await client.flags()).flags
        if flag.name == ENABLE and not flag.tenant and not flag.run_id
    ]
    if stored:
        change = await client.set_flag(
            ENABLE, stored[0].value, changed_by=who, expected_version=stored[0].version
        )
    else:
        change = await client.unset_flag(ENABLE, changed_by=who, expected_version=0)
    return [change], await client.flags()


def _steps(word: str, run: str) -> list[tuple[str, str]]:
    """What to set, in this order: the share comes first, so that nobody starts with all runs."""
    if word == "off":
        return [(ENABLE, "false")]
    if run:
        if word != "on":
            raise CommandFailed("a run is `on` or `off`", code=WRONG_USAGE)
        return [(ENABLE, "true")]
    try:
        percent = 100.0 if word == "on" else parse_percent(word)
    except ValueError as error:
        raise CommandFailed(
            f"{error}, `on`, `off`, `status` or `reset`", code=WRONG_USAGE
        ) from None
    return [(ROLLOUT, f"{percent:g}"), (ENABLE, "true")]


def _tenant(tenant: str, run: str) -> str:
    """The tenant that is meant: a run always has one."""
    return tenant or (DEFAULT_TENANT if run else "")


def _who() -> str:
    """Who runs this command, as far as it knows."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as containers have them
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _tell(changes: "list[FlagChange]", found: "FlagList", output: Format) -> None:
    if output is Format.JSON:
        print_json({"changes": [asdict(each) for each in changes], **asdict(found)})
    else:
        for change in changes:
            before, after = (
                "unset" if value is None else value
                for value in (change.value_before, change.value_after)
            )
            console().print(
                f"{change.name} for {_of(change)}: {before} -> {after} (version {change.version})"
            )
    for flag in found.in_force:
        touched = any(change.name == flag.name and change.value_after for change in changes)
        if touched and (flag.source, flag.value) == ("ENVIRONMENT", "false"):
            say(
                f"the environment of the server that answered says {flag.name}=false, which wins",
                label="warning",
            )


def _show(found: "FlagList", output: Format) -> None:
    if output is Format.JSON:
        print_json(asdict(found))
        return
    print_table(
        ("flag", "value", "because of"),
        [(flag.name, flag.value, flag.source.lower()) for flag in found.in_force],
        title="In the server that answered",
    )
    print_table(
        ("flag", "for", "value", "version", "set by", "set at", "problem"),
        [
            (
                flag.name,
                _of(flag),
                flag.value,
                flag.version,
                flag.set_by,
                flag.set_at,
                flag.problem,
            )
            for flag in found.flags
        ],
        title="Set",
        right=("version",),
    )
    print_facts([("newest change", found.version)])


def _print_changes(changes: "list[FlagChange]") -> None:
    print_table(
        ("version", "when", "flag", "for", "from", "to", "by"),
        [
            (
                change.version,
                change.changed_at,
                change.name,
                _of(change),
                change.value_before,
                change.value_after,
                change.changed_by,
            )
            for change in changes
        ],
        right=("version",),
    )


def _of(flag: Any) -> str:
    if flag.run_id:
        return f"run {flag.tenant}/{flag.run_id}"
    return f"tenant {flag.tenant}" if flag.tenant else "fleet"
