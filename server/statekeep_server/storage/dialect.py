"""The differences between PostgreSQL and SQLite, all of them.

A statement that needs one of them is built from a `Dialect`; nothing else in this package asks
which database it talks to.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.util import ClauseAdapter

MIGRATION_LOCK = 0x5354_4154_454B_4550
"""The key of the advisory lock around migrations: "STATEKEP" as a 64-bit integer."""

FLAGS_LOCK = 0x464C_4147_4B45_4550
"""The key of the advisory lock around changes of flags: "FLAGKEEP"."""


class Dialect(Protocol):
    """What a statement has to ask its database for."""

    name: str
    """The name that SQLAlchemy gives the database."""

    now_us: ColumnElement[int]
    """The database's clock: when the statement that reads it arrived."""

    locks_rows: bool
    """Whether writers of different runs work side by side, and so may wait for each other."""

    def asked(self, *names: str) -> FromClause:
        """Name a table of bound text rows: the columns `names`, and `position` to tell rows apart.

        One bound value per column, or one in all: the statement has the same text however many
        rows there are, so that it is prepared once.
        """
        ...

    def asked_rows(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, object]:
        """Make the parameters of `asked`."""
        ...

    def position(self, value: int) -> int:
        """Make an index into the asked rows of what the column `position` held."""
        ...

    def looked_up(
        self, table: Table, on: ColumnElement[bool], name: str
    ) -> tuple[FromClause, ColumnElement[bool]]:
        """Make what to join for a table whose rows are looked up one at a time, and the condition.

        Args:
            table: Whose rows.
            on: Names one row by the whole primary key, of what it is joined to.
            name: Of the result in the statement.
        """
        ...

    def insert_or_ignore(self, table: Table) -> Insert:
        """Insert rows, leaving those alone whose key is taken."""
        ...

    def locking(self, heads: Select[Any], table: Table) -> Select[Any]:
        """Lock the rows of `table` that a statement reads, in its order, until the commit."""
        ...

    def locking_free(self, heads: Select[Any], table: Table) -> Select[Any]:
        """Lock like `locking`, leaving out the rows that others hold."""
        ...

    connection_limit: Select[tuple[int]] | None
    """How many connections the database gives to this role; None where nothing limits them."""

    async def is_read_only(self, connection: AsyncConnection) -> bool:
        """Whether the database takes no writes, asked in a transaction that would write."""
        ...

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Wait until no other migration runs, and keep others out until the commit."""
        ...

    async def lock_flags(self, connection: AsyncConnection) -> None:
        """Wait until nobody else changes flags, and keep others out until the commit."""
        ...

    async def ensure_transaction(self, connection: AsyncConnection) -> None:
        """Make sure that the driver of a caller's connection has begun its transaction."""
        ...

    async def limit_lock_wait(self, connection: AsyncConnection, limit_ms: int) -> str:
        """Wait for locks at most so long in this transaction; return the limit before."""
        ...

    async def restore_lock_wait(self, connection: AsyncConnection, before: str) -> None:
        """Bring the limit back that `limit_lock_wait` returned."""
        ...


_READ_ONLY = select(func.pg_is_in_recovery(), func.current_setting("transaction_read_only"))
_CONNECTION_LIMIT = """(
  SELECT least(
    current_setting('max_connections')::int
      - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true)::int, 0),
    nullif((SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user), -1),
    nullif((SELECT datconnlimit FROM pg_database WHERE datname = current_database()), -1)
  )
)"""
_LOCK_TIMEOUT = select(func.current_setting("lock_timeout"))
_SET_LOCK_TIMEOUT = select(
    func.set_config("lock_timeout", bindparam("lock_timeout", type_=Text), True)
)


class Postgresql:
    """PostgreSQL 15 to 18 through asyncpg."""

    name = "postgresql"
    locks_rows = True

    # The statement's own time, not the transaction's: a transaction may have waited for a lock.
    now_us: ColumnElement[int] = literal_column(
        "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint", BigInteger
    )

    def asked(self, *names: str) -> FromClause:
        """Unnest one array per column."""
        arrays = [bindparam(f"asked_{name}", type_=postgresql.ARRAY(Text)) for name in names]
        columns = [column(name, Text) for name in names]
        rows = func.unnest(*arrays).table_valued(*columns, with_ordinality="position")
        return rows.render_derived(name="asked")

    def asked_rows(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, object]:
        """Turn rows into one array per column."""
        return {f"asked_{name}": [row[i] for row in rows] for i, name in enumerate(names)}

    def position(self, value: int) -> int:
        """Ordinality counts from 1."""
        return value - 1

    def looked_up(
        self, table: Table, on: ColumnElement[bool], name: str
    ) -> tuple[FromClause, ColumnElement[bool]]:
        """Make a lateral subquery with an OFFSET, which is planned by itself.

        In a plain join the planner may read a whole run and compare versions then: while it knows
        nothing about a table, or from when the table was small, both look alike to it.
        """
        return select(table).where(on).offset(literal_column("0")).lateral(name), true()

    def insert_or_ignore(self, table: Table) -> Insert:
        """INSERT … ON CONFLICT DO NOTHING."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def locking(self, heads: Select[Any], table: Table) -> Select[Any]:
        """SELECT … FOR UPDATE."""
        return heads.with_for_update(of=table)

    def locking_free(self, heads: Select[Any], table: Table) -> Select[Any]:
        """SELECT … FOR UPDATE SKIP LOCKED."""
        return heads.with_for_update(of=table, skip_locked=True)

    connection_limit: Select[tuple[int]] | None = select(
        literal_column(_CONNECTION_LIMIT, Integer).label("connection_limit")
    )

    async def is_read_only(self, connection: AsyncConnection) -> bool:
        """Ask whether this is a replica, or a session that only reads."""
        row = (await connection.execute(_READ_ONLY)).one()
        return bool(row[0]) or row[1] == "on"

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Take an advisory lock of the transaction: poolers do not keep those of sessions."""
        await connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))

    async def lock_flags(self, connection: AsyncConnection) -> None:
        """Take an advisory lock of the transaction: the first change has no row to lock."""
        await connection.execute(select(func.pg_advisory_xact_lock(FLAGS_LOCK)))

    async def ensure_transaction(self, connection: AsyncConnection) -> None:
        """Do nothing: the driver begins with the first statement."""

    async def limit_lock_wait(self, connection: AsyncConnection, limit_ms: int) -> str:
        """Read the limit and set it for this transaction."""
        before: str = (await connection.execute(_LOCK_TIMEOUT)).scalar_one()
        await self.restore_lock_wait(connection, f"{limit_ms}ms")
        return before

    async def restore_lock_wait(self, connection: AsyncConnection, before: str) -> None:
        """Set the limit for this transaction."""
        await connection.execute(_SET_LOCK_TIMEOUT, {"lock_timeout": before})


# Changes no row, but must be allowed to: it takes the lock of the writer.
_WRITE_NOTHING = "UPDATE heads SET version = version WHERE FALSE"


class Sqlite:
    """SQLite 3.38 or later through aiosqlite.

    Its one writer holds the whole file from BEGIN IMMEDIATE on: there are no rows to lock.
    """

    name = "sqlite"
    locks_rows = False

    # SQLite's clock has milliseconds; unixepoch('subsec') came with 3.42 only.
    now_us: ColumnElement[int] = literal_column(
        "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)", BigInteger
    )

    def asked(self, *names: str) -> FromClause:
        """Read the rows from one JSON array of arrays."""
        rows = func.json_each(bindparam("asked", type_=Text)).table_valued("key", "value")
        fields = [
            cast(func.json_extract(rows.c.value, f"$[{i}]"), Text).label(name)
            for i, name in enumerate(names)
        ]
        return select(rows.c.key.label("position"), *fields).subquery("asked")

    def asked_rows(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, object]:
        """Write the rows as JSON."""
        del names  # fields go by their place
        return {"asked": json.dumps([list(row) for row in rows], ensure_ascii=False)}

    def position(self, value: int) -> int:
        """The keys of a JSON array count from 0."""
        return value

    def looked_up(
        self, table: Table, on: ColumnElement[bool], name: str
    ) -> tuple[FromClause, ColumnElement[bool]]:
        """Join the table: SQLite has no lateral subqueries, and plans this so by itself."""
        alias = table.alias(name)
        return alias, ClauseAdapter(alias).traverse(on)

    def insert_or_ignore(self, table: Table) -> Insert:
        """INSERT … ON CONFLICT DO NOTHING."""
        return sqlite.insert(table).on_conflict_do_nothing()

    def locking(self, heads: Select[Any], table: Table) -> Select[Any]:
        """Lock nothing: the transaction holds the file."""
        del table
        return heads

    def locking_free(self, heads: Select[Any], table: Table) -> Select[Any]:
        """Lock nothing: the transaction holds the file."""
        del table
        return heads

    connection_limit: Select[tuple[int]] | None = None

    async def is_read_only(self, connection: AsyncConnection) -> bool:
        """Answer no, or fail: on a file that is only read, BEGIN IMMEDIATE alone does not."""
        await connection.exec_driver_sql(_WRITE_NOTHING)
        return False

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Do nothing: the transaction holds the file."""

    async def lock_flags(self, connection: AsyncConnection) -> None:
        """Do nothing: the transaction holds the file."""

    async def ensure_transaction(self, connection: AsyncConnection) -> None:
        """Begin where the driver has not: it would take a savepoint for the transaction."""
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        if not driver.in_transaction:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")

    async def limit_lock_wait(self, connection: AsyncConnection, limit_ms: int) -> str:
        """Become the writer now, before anything is read that another writer might change.

        A transaction that began as a reader is refused where another wrote since. The wait is
        that of the caller's connection.
        """
        del limit_ms
        await connection.exec_driver_sql(_WRITE_NOTHING)
        return ""

    async def restore_lock_wait(self, connection: AsyncConnection, before: str) -> None:
        """Do nothing: no limit was set."""
