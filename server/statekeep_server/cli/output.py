"""What commands print: tables for people, JSON for programs; results on stdout, the rest on stderr.

Nothing that comes from a server is read as markup, and control characters do not reach a terminal.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 240
"""Columns of a table that goes to a file or a pipe: nobody should get half an id."""


_HIGH_CONTROL = re.compile(r"[\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


def console() -> Console:
    """Where results go."""
    return Console(
        width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False
    )


def tell_anybody(text: str) -> None:
    """Print a line to whoever is there: nobody has to be, and nothing fails by it.

    Past all buffers: what is left in one is tried again at the end, and fails there.
    """
    if sys.stdout is not None:  # it was closed before this program started
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), f"{text}\n".encode())


def error_console() -> Console:
    """Where errors and progress go."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON. Bytes are hexadecimal, times RFC 3339."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    # JSON escapes the control characters below the space by itself.
    text = _HIGH_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(text + "\n")


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """Print a table.

    Args:
        headers: One for each column.
        rows: Cells of any type.
        title: Stands above the table.
        right: Headers of columns that hold numbers.
    """
    table = Table(box=box.SIMPLE, title=title and Text(title, style="bold"), title_justify="left")
    for header in headers:
        number = header in right
        table.add_column(
            Text(harmless(header)),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number,
        )
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, Any]], *, title: str | None = None) -> None:
    """Print names and values, one pair a line."""
    table = Table(box=None, show_header=False, title=title and Text(title, style="bold"))
    table.title_justify = "left"
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(harmless(name)), Text(cell(value)))
    console().print(table)


def harmless(text: str) -> str:
    """A text whose control characters are shown and not obeyed."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def cell(value: Any) -> str:
    """A value as people read it, without anything that a terminal would obey."""
    return harmless(_readable(value))


def _readable(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return str(value)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")
