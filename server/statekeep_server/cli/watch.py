"""`statekeep stats --watch`: a table that refreshes on a terminal, a line a look elsewhere."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from statekeep_server.cli.connection import Connection, failure
from statekeep_server.cli.output import Format, cell, console
from statekeep_server.cli.rates import Rates, rates
from statekeep_server.service.kpis import Kpis

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import ServerStats

Show = Callable[[Rates | None, str], None]
"""Shows what happened, or says why nothing is known."""


def watch_stats(
    connection: Connection, output: Format, *, every_s: float, count: int | None
) -> None:
    """Show what happens between looks, until Ctrl-C or `count` looks after the first.

    Raises CommandFailed when the first look finds no server; later ones go on trying.
    """
    with contextlib.suppress(KeyboardInterrupt), screen(output) as show:
        asyncio.run(_watch(connection, show, every_s=every_s, count=count))


async def _watch(connection: Connection, show: Show, *, every_s: float, count: int | None) -> None:
    from statekeep import StatekeepError

    async with connection.client() as client:
        try:
            before: ServerStats | None = await client.stats()
        except StatekeepError as error:
            raise failure(error) from None
        looked_s = time.monotonic()
        looks = 0
        while count is None or looks < count:
            await asyncio.sleep(every_s)
            looks += 1
            try:
                now = await client.stats()
            except StatekeepError as error:
                before = None
                show(None, f"no answer: {error.message}")
                continue
            at_s = time.monotonic()
            found = None if before is None else rates(before, now, at_s - looked_s)
            show(found, "counts begin anew" if found is None else "")
            before, looked_s = now, at_s


@contextmanager
def screen(output: Format) -> Iterator[Show]:
    """Choose how to show it."""
    if output is Format.JSON:
        yield _as_json
    elif sys.stdout.isatty():
        with Live(console=console(), auto_refresh=False) as live:
            yield lambda found, why: live.update(_table(found, why), refresh=True)
    else:
        yield lambda found, why: _write(line(found, why))


def _as_json(found: Rates | None, why: str) -> None:
    told: dict[str, Any] = {"at": _now().isoformat().replace("+00:00", "Z")}
    told |= {"problem": cell(why)} if found is None else asdict(found)
    _write(json.dumps(told))


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # who reads a pipe wants it now


def line(found: Rates | None, why: str) -> str:
    """Write a look in one line."""
    if found is None:
        return f"{_now():%H:%M:%S} {cell(why)}"
    facts = (f"{name.replace(' ', '_')}={cell(value)}" for name, value in facts_of(found))
    return f"{_now():%H:%M:%S} {' '.join(facts)}"


def _table(found: Rates | None, why: str) -> Table:
    table = Table(box=None, show_header=False, title=f"{_now():%H:%M:%S}Z, Ctrl-C ends")
    table.title_justify = "left"
    for name, value in [("", why)] if found is None else facts_of(found):
        table.add_row(Text(name, style="dim"), Text(cell(value)))
    return table


def facts_of(found: Rates) -> list[tuple[str, Any]]:
    """Name what happened between two looks."""
    return [
        ("saves/s", found.saves_per_s),
        ("rows/s", found.rows_per_s),
        ("statements/s", found.statements_per_s),
        ("loads/s", found.loads_per_s),
        ("failures/s", found.failures_per_s),
        *kpi_facts(found.kpis),
        ("circuit open", found.circuit_open),
        ("tripped", found.tripped),
    ]


def kpi_facts(found: Kpis) -> list[tuple[str, Any]]:
    """Name the KPIs with their units."""
    return [
        ("skipped %", _times(found.skip_rate, 100)),
        ("persisted ms", _times(found.saved_mean_s, 1_000)),
        ("skipped ms", _times(found.skipped_mean_s, 1_000)),
        ("pool use %", _times(found.pool_use, 100)),
        ("fallbacks %", _times(found.fallback_rate, 100)),
        ("cache hits %", _times(found.cache_hit_rate, 100)),
        ("writes avoided", found.writes_avoided),
    ]


def _times(share: float | None, factor: int) -> float | None:
    return None if share is None else factor * share


def _now() -> datetime:
    return datetime.now(UTC)
