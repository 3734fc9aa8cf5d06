"""Engines: a URL and a pool become connections whose commits are durable.

PostgreSQL: one pool, READ COMMITTED, with time limits on statements and on waiting for locks.
There is no pre-ping, which would cost three round trips per save: a connection that turns out
dead is replaced, and what it was to do is done again (see `transactions`). Behind a pooler in
transaction mode no statement is kept prepared, every statement runs in a transaction of its own
(preparing and executing must not reach two servers, whatever the driver sends in between), and
the time limits are the client's.

SQLite: one writing connection, so that savers queue here and not at the file's lock, and a few
reading ones. WAL with `synchronous=FULL`: NORMAL may lose acknowledged commits at a power cut.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.storage.dialect import Dialect, Postgresql, Sqlite
from statekeep_server.storage.gate import Gate
from statekeep_server.storage.translate import UNREACHABLE
from statekeep_server.storage.urls import DatabaseUrl

SQLITE_READERS = 4
"""Each is a thread; reads of a file in the page cache need no more."""

SQLITE_PAGE_BYTES = 8_192
"""Twice the default: pages of 8 kB took 1.4 times as many saves of 10 kB."""

_driver_log = logging.getLogger("aiosqlite")

WAL_ATTEMPTS = 50
WAL_PAUSE_S = 0.02
"""Together a second, which the change takes on no disk; only the first opening ever waits."""

AUTOCOMMIT = "AUTOCOMMIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a statement may run, and how long it may wait for a lock."""

    statement_s: float
    lock_s: float


UNCOUNTED = "statekeep_uncounted"
"""The option of connections whose statements are nobody's save or load."""


class StatementCounter:
    """Counts the statements that reach a database.

    One for each execution, with however many rows, and one for each BEGIN, COMMIT and ROLLBACK;
    none on a connection with the option `UNCOUNTED`, which health checks use.
    """

    def __init__(self) -> None:
        self.sent = 0

    def attach(
        self, engine: Engine, *, driver_begins: bool = False, has_transactions: bool = True
    ) -> None:
        """Count what an engine sends.

        Args:
            engine: The engine.
            driver_begins: Whether its driver sends BEGIN by itself.
            has_transactions: Whether it ever sends more than single statements.
        """
        event.listen(engine, "before_cursor_execute", self._count)
        if not has_transactions:
            return
        if driver_begins:
            event.listen(engine, "begin", self._count_boundary)
        event.listen(engine, "commit", self._count_boundary)
        event.listen(engine, "rollback", self._count_boundary)

    def _count(self, connection: Connection, *_: object) -> None:
        if UNCOUNTED not in connection.get_execution_options():
            self.sent += 1

    def _count_boundary(self, connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != AUTOCOMMIT:
            self._count(connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The ways to one database.

    Attributes:
        writer: Runs transactions.
        reader: Runs single statements, each a transaction of its own.
        gate: Stands before a pool that may overflow.
    """

    url: DatabaseUrl
    dialect: Dialect
    writer: AsyncEngine
    reader: AsyncEngine
    gate: Gate | None = None
    statements: StatementCounter = field(default_factory=StatementCounter)


@asynccontextmanager
async def open_engines(
    url: DatabaseUrl, *, pool: PoolSettings, timeouts: Timeouts
) -> AsyncIterator[Engines]:
    """Make the engines of a database; connections are opened when they are needed."""
    engines = _sqlite(url, pool, timeouts) if url.is_sqlite else _postgresql(url, pool, timeouts)
    try:
        yield engines
    finally:
        await engines.writer.dispose()
        await engines.reader.dispose()


async def release_idle(engines: Engines) -> bool:
    """Close the idle connections of PostgreSQL; say whether none is left in use.

    Whoever needs a connection meanwhile opens one. SQLite keeps its few: they cost a thread each.
    """
    pool: Any = engines.writer.pool
    if engines.url.is_sqlite:
        return True
    await greenlet_spawn(_close_idle, pool)
    return not pool.checkedout()


def _close_idle(pool: Any) -> None:
    # There is no public way: an invalidated connection leaves its place in the pool behind, which
    # counts as idle and opens again, and disposing of a pool in use forgets who is using it.
    while pool.checkedin():
        record = pool._pool.get(False)  # noqa: SLF001  # see above; a test swaps pools under load
        pool._dec_overflow()  # noqa: SLF001  # see above
        record.close()  # errors included: a dead connection is dropped and logged


def _postgresql(url: DatabaseUrl, pool: PoolSettings, timeouts: Timeouts) -> Engines:
    engine = create_async_engine(
        url.url,
        connect_args=postgresql_arguments(url, timeouts),
        isolation_level="READ COMMITTED",
        pool_size=pool.pool_size,
        max_overflow=pool.max_overflow,
        pool_timeout=pool.pool_timeout_s,
        pool_recycle=pool.pool_recycle_s,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "handle_error", _drop_silent_connection)
    reader = engine if url.behind_pooler else engine.execution_options(isolation_level=AUTOCOMMIT)
    gate = Gate(pool.pool_size)
    engines = Engines(url=url, dialect=Postgresql(), writer=engine, reader=reader, gate=gate)
    engines.statements.attach(engine.sync_engine, driver_begins=True)
    return engines


def postgresql_arguments(url: DatabaseUrl, timeouts: Timeouts) -> dict[str, Any]:
    """Make the arguments of `asyncpg.connect` beyond host, user, password and database."""
    arguments: dict[str, Any] = {
        "timeout": timeouts.statement_s,
        "command_timeout": timeouts.statement_s,
        "prepared_statement_cache_size": url.statement_cache_size,
        "statement_cache_size": url.statement_cache_size,
    }
    if url.driver_options:
        # Host, user, password and database come beside it and win.
        arguments["dsn"] = f"postgresql://?{url.driver_options}"
    if url.behind_pooler:
        # Poolers refuse settings at the start of a session, and give sessions to others.
        arguments["prepared_statement_name_func"] = _unnamed
        return arguments
    arguments["server_settings"] = {
        "lock_timeout": _milliseconds(timeouts.lock_s),
        # The client gives up first, and then asks the server to stop: this is for lost clients.
        "statement_timeout": _milliseconds(timeouts.statement_s * 1.5),
        "idle_in_transaction_session_timeout": _milliseconds(timeouts.statement_s * 3),
        # Our statements are all short: compiling one costs more than running it.
        "jit": "off",
        # They all find their rows by an index. A plan is kept for as long as its connection, and
        # one made while the tables were small must not read whole ones once they are large.
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }
    return arguments


def _drop_silent_connection(context: ExceptionContext) -> None:
    """Drop a connection that gave no answer in time, without a word to its server.

    SQLAlchemy would say good-bye first, and wait for the answer of a server that may be frozen.
    """
    if isinstance(context.original_exception, TimeoutError) and context.connection is not None:
        driver: Any = context.connection.connection.driver_connection
        driver.terminate()


def _unnamed() -> str:
    """The name of the statement that the next one replaces, so that none is left behind."""
    return ""


def _milliseconds(seconds: float) -> str:
    # 0 would mean no limit at all.
    return str(max(1, round(seconds * 1_000)))


def _sqlite(url: DatabaseUrl, pool: PoolSettings, timeouts: Timeouts) -> Engines:
    _create_file(url.url)
    if _driver_log.level == logging.NOTSET:
        # At DEBUG it would show the states.
        _driver_log.setLevel(logging.WARNING)
    writer = create_async_engine(
        url.url,
        connect_args={"timeout": timeouts.lock_s},
        pool_size=1,
        max_overflow=0,
        pool_timeout=pool.pool_timeout_s,
        hide_parameters=True,
    )
    event.listen(writer.sync_engine, "connect", _prepare_sqlite)
    event.listen(writer.sync_engine, "begin", _begin_immediate)
    reader = create_async_engine(
        url.url,
        connect_args={"timeout": timeouts.lock_s},
        pool_size=SQLITE_READERS,
        max_overflow=0,
        pool_timeout=pool.pool_timeout_s,
        # Autocommit is how each connection is made. As an option of the engine it would be set
        # whenever one is taken: that costs two turns of the driver's thread for each read, and who
        # is cancelled meanwhile leaves the connection to the garbage collector.
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )
    event.listen(reader.sync_engine, "connect", _prepare_sqlite)
    engines = Engines(url=url, dialect=Sqlite(), writer=writer, reader=reader)
    engines.statements.attach(writer.sync_engine)
    engines.statements.attach(reader.sync_engine, has_transactions=False)
    return engines


def _create_file(url: URL) -> None:
    """Create the file for its owner alone; SQLite gives its companions the same mode."""
    path = Path(url.database or "")
    if url.query.get("uri"):
        return  # a file: URI says by itself whether the file may be created
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        message = f"the database file {path} cannot be opened: {error.strerror}"
        raise StorageUnavailable(UNREACHABLE, message) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would begin them too late, as readers.
    connection.isolation_level = None
    cursor = connection.cursor()
    # Only a new file takes it, and only before the change to WAL.
    cursor.execute(f"PRAGMA page_size = {SQLITE_PAGE_BYTES}")
    _change_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    # macOS has an fsync that does not reach the disk.
    cursor.execute("PRAGMA fullfsync = ON")
    cursor.close()


def _change_to_wal(cursor: Any) -> None:
    """Change a file to WAL, and a changed one not at all.

    Of servers that open a new file at once all but one are told that it is locked, and at once:
    SQLite does not wait here.
    """
    for attempt in range(1, WAL_ATTEMPTS + 1):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if attempt == WAL_ATTEMPTS:
                raise
            # The engine calls this where it may wait: others go on meanwhile.
            await_only(asyncio.sleep(WAL_PAUSE_S))
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
