"""Writes `docs/configuration.md`: every setting, from the definitions that a server itself uses.

The names come from `cli/settings.py` and the options of `statekeep serve`, the defaults from
`config.py`, `domain/limits.py` and `flags.py`, the meanings from what stands below each field
there, and what is allowed from what the parsers say when they refuse.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from statekeep_server import config, flags
from statekeep_server.cli import main as cli
from statekeep_server.cli import settings
from statekeep_server.cli.settings import Knob
from statekeep_server.cli.variables import OTHER_VARIABLES
from statekeep_server.domain import limits
from statekeep_server.domain.ignored import DEFAULT_IGNORED_FIELDS

TARGET = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

PARTS = ("limits", "standard_pool", "optimized_pool")
"""Fields of `Settings` whose own fields have tables of their own."""

PROCESS = {
    "log_level": "What the server logs: this level and above.",
    "log_format": "How log lines are written: `auto` is text on a terminal, and JSON elsewhere.",
}
"""What belongs to the process and is no field of `Settings`."""

UNITS = {"_s": "s", "_bytes": "bytes", "_percent": "%"}

HEAD = """\
# Configuration reference

Written by `make configuration` from the definitions that `statekeep serve` itself uses, and
compared with them by a test. How to go about it is in [operations.md](operations.md).

An option wins over its variable, and a variable that is empty counts as not set. Everything that
is wrong is reported at once, and the server does not start. What changes *at run time* is a flag:
`statekeep flags set` sets it for the whole fleet, and every server follows within a second. Which
value holds is in [rollout.md](rollout.md#which-value-holds). Everything else needs a restart.
"""

IGNORED = """
## Fields that are always ignored

No comparison of states looks at these names at the top level of a state:
{names}.

`STATEKEEP_IGNORED_FIELDS` and each request add more. A bare name matches at the top level only.
Deeper fields are named by a JSON Pointer, where `*` stands for every element of an array:
`/plan/*/seen_at`. Servers with different lists never skip on each other's saves.
"""

CONSTANTS = """
## Constants

They have neither option nor variable. A server that is put together in Python (`Settings`) can
choose others.
"""

LIMITS = """
## Limits of what callers send

Each is a maximum. `statekeep info` prints what a running server uses.
"""

POOLS = """
## Pools

Each path has a pool of database connections of its own, opened when they are first needed.
"""

OTHERS = """
## Other variables

What commands, clients and libraries read. All other `OTEL_` variables mean what OpenTelemetry says.
"""


@cache
def meanings(kind: type) -> Mapping[str, str]:
    """Read what stands below each field of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for pair in pairwise(body):
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                found[name] = said
    return found


def allowed(parse: Callable[[str], Any]) -> str:
    """Say what a parser takes: by what it says when it refuses, or else by its first sentence."""
    try:
        parse("?")
    except ValueError as error:
        if found := re.fullmatch(r"'\?' is (?:not|none of) (.*)", str(error), re.DOTALL):
            return found[1]
    sentence = (parse.__doc__ or "").partition(".")[0]
    return sentence.partition(" ")[2]


def shown(name: str, value: object) -> str:
    """Write a default with its unit."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f"`{value}`"
    number = f"{value:,}" if isinstance(value, int) else f"{value:,g}"
    if name == "port":  # it is a name rather than a number
        return f"`{value}`"
    unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
    return f"{number} {unit}".strip()


def default_of(knob: Knob) -> str:
    """Say what holds where nobody says anything."""
    if knob.variable in flags.FlagName.__members__:
        started = flags.in_force(flags.Environment(), flags.NOTHING_STORED, "INFO")
        value = next(flag.value for flag in started if flag.name == knob.variable)
        return f"{value} %" if knob.parse is flags.parse_percent else f"`{value}`"
    if knob.field == "log_format":
        return "`auto`"
    if knob.field == "database_url":
        return "a SQLite file in the user's data folder"
    (field,) = (each for each in dataclasses.fields(config.Settings) if each.name == knob.field)
    return shown(knob.field, field.default)


def knobs() -> tuple[Knob, ...]:
    """List the settings of a server and of its process."""
    of_process = [knob for knob in vars(settings).values() if isinstance(knob, Knob)]
    return (*settings.KNOBS, *of_process)


def knob_rows() -> Iterator[Sequence[str]]:
    """Make the rows of the table of settings."""
    below = {**PROCESS, **meanings(config.Settings)}
    for knob in knobs():
        at_run_time = knob.variable in flags.FlagName.__members__
        yield (
            f"`{knob.field}`",
            f"`{knob.option}`" if knob.option else "none",
            f"`{knob.variable}`",
            default_of(knob),
            allowed(knob.parse),
            "at run time" if at_run_time else "at start",
            below[knob.field],
        )


def field_rows(kind: type, without: Iterable[str] = ()) -> Iterator[Sequence[str]]:
    """Make the rows of the fields of a class that have no option and no variable."""
    below = meanings(kind)
    for field in dataclasses.fields(kind):
        if field.name not in without:
            yield f"`{field.name}`", shown(field.name, field.default), below[field.name]


def pool_rows() -> Iterator[Sequence[str]]:
    """Make the rows of the pools: both defaults beside each other."""
    below = meanings(config.PoolSettings)
    for field in dataclasses.fields(config.PoolSettings):
        both = (config.STANDARD_POOL, config.OPTIMIZED_POOL)
        values = (shown(field.name, getattr(pool, field.name)) for pool in both)
        yield (f"`{field.name}`", *values, below[field.name])


def command_line_rows() -> Iterator[Sequence[str]]:
    """Make the rows of the options of `statekeep serve` that are no settings."""
    command: Any = typer.main.get_command(cli.app)
    options = {knob.option for knob in knobs()}
    for parameter in command.commands["serve"].params:
        if not options & set(parameter.opts):
            yield f"`{parameter.opts[0]} {parameter.metavar or ''}".strip() + "`", parameter.help


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [" | ".join(head), "|".join("---" for _ in head)]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines += [" | ".join(" ".join(cell.split()) for cell in row) for row in cells]
    return "".join(f"| {line} |\n" if "---" not in line else f"|{line}|\n" for line in lines)


def reference() -> str:
    """Write the whole reference."""
    with_knobs = {knob.field for knob in knobs()}
    names = ", ".join(f"`{name}`" for name in DEFAULT_IGNORED_FIELDS)
    head = ("setting", "option", "variable", "default", "allowed", "changes", "meaning")
    constants = ("setting", "value", "meaning")
    return "\n".join(
        (
            HEAD + "\n## Settings\n",
            table(head, knob_rows()),
            "`statekeep serve` has more options:\n",
            table(("option", "meaning"), command_line_rows()),
            IGNORED.lstrip("\n").format(names=textwrap.fill(names, 99)),
            CONSTANTS.lstrip("\n"),
            table(constants, field_rows(config.Settings, {*with_knobs, *PARTS})).rstrip("\n"),
            LIMITS,
            table(constants, field_rows(limits.Limits)).rstrip("\n"),
            POOLS,
            table(("setting", "standard", "optimized", "meaning"), pool_rows()).rstrip("\n"),
            OTHERS,
            table(
                ("variable", "meaning"),
                ((f"`{name}`", meaning) for name, meaning in OTHER_VARIABLES.items()),
            ),
        )
    )


def main() -> None:
    """Write the reference, or compare it with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    check: bool = parser.parse_args().check
    try:
        fresh = reference()
    except KeyError as error:
        sys.exit(f"{error} has no text: say below the field what it does, to who operates a server")
    current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if not check:
        TARGET.write_text(fresh, encoding="utf-8")
    elif fresh != current:
        sys.exit("docs/configuration.md is not current; run `make configuration`")


if __name__ == "__main__":
    main()
