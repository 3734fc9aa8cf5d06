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
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Insert

MIGRATION_LOCK = 0x5354_4154_454B_4550
"""The key of the advisory lock around migrations: "STATEKEP" as a 64-bit integer."""


class Dialect(Protocol):
    """What a statement has to ask its database for."""

    name: str
    """The name that SQLAlchemy gives the database."""

    now_us: ColumnElement[int]
    """The database's clock: when the statement that reads it arrived."""

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

    def insert_or_ignore(self, table: Table) -> Insert:
        """Insert rows, leaving those alone whose key is taken."""
        ...

    def locking(self, heads: Select[Any], table: Table) -> Select[Any]:
        """Lock the rows of `table` that a statement reads, in its order, until the commit."""
        ...

    def locking_free(self, heads: Select[Any], table: Table) -> Select[Any]:
        """Lock like `locking`, leaving out the rows that others hold."""
        ...

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Wait until no other migration runs, and keep others out until the commit."""
        ...


class Postgresql:
    """PostgreSQL 15 to 18 through asyncpg."""

    name = "postgresql"

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

    def insert_or_ignore(self, table: Table) -> Insert:
        """INSERT … ON CONFLICT DO NOTHING."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def locking(self, heads: Select[Any], table: Table) -> Select[Any]:
        """SELECT … FOR UPDATE."""
        return heads.with_for_update(of=table)

    def locking_free(self, heads: Select[Any], table: Table) -> Select[Any]:
        """SELECT … FOR UPDATE SKIP LOCKED."""
        return heads.with_for_update(of=table, skip_locked=True)

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Take an advisory lock of the transaction, which also poolers keep to it."""
        await connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))


class Sqlite:
    """SQLite 3.38 or later through aiosqlite.

    Its one writer holds the whole file from BEGIN IMMEDIATE on: there are no rows to lock.
    """

    name = "sqlite"

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

    async def lock_migrations(self, connection: AsyncConnection) -> None:
        """Do nothing: the transaction holds the file."""
