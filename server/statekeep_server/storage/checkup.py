"""What `statekeep doctor` asks a database: facts, read without changing anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import SchemaMismatch
from statekeep_server.service.ports import Clock
from statekeep_server.storage.durability import (
    UnsafeDatabase,
    require_durable_postgresql,
    require_durable_sqlite,
)
from statekeep_server.storage.engine import Engines, Timeouts, open_engines
from statekeep_server.storage.schema import SCHEMA_REVISION, read_revision, require_revision
from statekeep_server.storage.translate import translated
from statekeep_server.storage.urls import parse_database_url

TIMEOUTS = Timeouts(statement_s=5.0, lock_s=5.0)
"""Somebody waits for the answer."""

POOL = PoolSettings(pool_size=1, max_overflow=0, pool_timeout_s=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What a database says of itself.

    Attributes:
        version: `18.0` for example.
        unsafe: Why it may lose acknowledged saves; None when it does not.
        revision: Of its schema; None without one.
        fits: Whether this server works with that schema.
        read_only: Whether it takes no writes.
        clock_ahead_s: Of this machine's clock; None where they are the same.
        clock_doubt_s: How far that may be off: half of what the question took.
        connection_limit: Of this role; None where nothing limits them.
    """

    version: str
    unsafe: str | None
    revision: str | None
    needed_revision: str
    fits: bool
    read_only: bool
    clock_ahead_s: float | None
    clock_doubt_s: float
    connection_limit: int | None


def sqlite_path(database_url: str) -> Path | None:
    """The file of a SQLite database; None for others. Raises InvalidField."""
    url = parse_database_url(database_url)
    return Path(url.url.database or "") if url.is_sqlite else None


async def examine(database_url: str, clock: Clock) -> DatabaseFacts:
    """Ask a database. Raises InvalidField or StorageUnavailable.

    A SQLite file that is not there would be created: look first.
    """
    url = parse_database_url(database_url)
    async with open_engines(url, pool=POOL, timeouts=TIMEOUTS) as engines:
        revision = await read_revision(engines.reader)
        return await translated(_examine(engines, revision, clock))


async def _examine(engines: Engines, revision: str | None, clock: Clock) -> DatabaseFacts:
    sqlite = engines.url.is_sqlite
    version = select(func.sqlite_version() if sqlite else func.current_setting("server_version"))
    async with engines.writer.connect() as connection:
        ahead_s, doubt_s = await _compare_clocks(connection, engines.dialect.now_us, clock)
        return DatabaseFacts(
            version=(await connection.execute(version)).scalar_one(),
            unsafe=await _unsafe(connection, sqlite=sqlite),
            revision=revision,
            needed_revision=SCHEMA_REVISION,
            fits=_fits(revision),
            read_only=await engines.dialect.is_read_only(connection),
            clock_ahead_s=None if sqlite else ahead_s,
            clock_doubt_s=doubt_s,
            connection_limit=await _connection_limit(engines, connection),
        )


async def _unsafe(connection: AsyncConnection, *, sqlite: bool) -> str | None:
    try:
        await (require_durable_sqlite if sqlite else require_durable_postgresql)(connection)
    except UnsafeDatabase as error:
        return error.why
    return None


async def _connection_limit(engines: Engines, connection: AsyncConnection) -> int | None:
    statement: Select[Any] | None = engines.dialect.connection_limit
    if statement is None:
        return None
    limit: int = (await connection.execute(statement)).scalar_one()
    return limit


def _fits(revision: str | None) -> bool:
    try:
        require_revision(revision)
    except SchemaMismatch:
        return False
    return True


async def _compare_clocks(
    connection: AsyncConnection, now_us: Any, clock: Clock
) -> tuple[float, float]:
    """The best of three: the shortest question tells most."""
    asked = [await _ask_clock(connection, now_us, clock) for _ in range(3)]
    doubt_us, ahead_us = min(asked)
    return ahead_us / 1_000_000, doubt_us / 1_000_000


async def _ask_clock(connection: AsyncConnection, now_us: Any, clock: Clock) -> tuple[float, float]:
    before_us = clock.now_us()
    theirs_us = (await connection.execute(select(now_us))).scalar_one()
    after_us = clock.now_us()
    return (after_us - before_us) / 2, theirs_us - (before_us + after_us) / 2
