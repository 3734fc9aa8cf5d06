"""The flags of the fleet in the database, on connections of their own.

Pools of saves may be exhausted, and their statements may wait for locks: that is when an operator
switches something off, and when it must reach every server. So flags have one connection of their
own in each process, with a short patience.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import ColumnElement, delete, func, insert, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import FlagConflict, InvalidField
from statekeep_server.flags import FlagChange, FlagName, Scope, StoredFlag, StoredFlags
from statekeep_server.service.ports import MAX_OVERRIDES
from statekeep_server.storage.engine import Engines, Timeouts, open_engines
from statekeep_server.storage.sql_store import verify
from statekeep_server.storage.tables import flag_changes, flags
from statekeep_server.storage.transactions import Done, Transactions
from statekeep_server.storage.urls import parse_database_url

POOL = PoolSettings(pool_size=1, max_overflow=0, pool_timeout_s=2.0)
"""One statement at a time, twice a second."""

TIMEOUTS = Timeouts(statement_s=2.0, lock_s=2.0)
"""A database that needs longer is asked again; meanwhile the last known flags hold."""

_NEWEST = select(func.coalesce(func.max(flag_changes.c.version), 0).label("version"))
# One statement, so that the version and the flags are of one moment.
_ALL = (
    select(_NEWEST.scalar_subquery().label("newest"), *flags.c)
    .select_from(select(literal(1).label("one")).subquery("one").outerjoin(flags, true()))
    .order_by(flags.c.tenant, flags.c.run_id, flags.c.name)
)
_OVERRIDES = select(func.count()).select_from(flags).where(flags.c.tenant != "")


@asynccontextmanager
async def open_flag_store(
    database_url: str, *, allow_unsafe_durability: bool = False
) -> AsyncIterator["SqlFlagStore"]:
    """Open the flags of a database, verified as `open_sql_store` does, with its errors."""
    url = parse_database_url(database_url)
    async with open_engines(url, pool=POOL, timeouts=TIMEOUTS) as engines:
        await verify(engines, allow_unsafe_durability=allow_unsafe_durability)
        yield SqlFlagStore(engines)


class SqlFlagStore:
    """Keeps flags in a database. Implements `service.ports.FlagStore`."""

    def __init__(self, engines: Engines) -> None:
        self._dialect = engines.dialect
        self._transactions = Transactions(engines)

    async def version(self) -> int:
        """Read the version of the newest change, by the end of an index."""
        newest: int = (await self._transactions.read(_NEWEST))[0]["version"]
        return newest

    async def read(self) -> StoredFlags:
        """Read all that is set."""
        rows = await self._transactions.read(_ALL)
        return StoredFlags(
            version=rows[0]["newest"],
            flags=tuple(
                StoredFlag(
                    name=row["name"],
                    scope=Scope(row["tenant"], row["run_id"]),
                    value=row["value"],
                    version=row["version"],
                    set_by=row["set_by"],
                    set_at_us=row["set_at_us"],
                )
                for row in rows
                if row["name"] is not None
            ),
        )

    async def change(
        self,
        name: FlagName,
        scope: Scope,
        value: str | None,
        *,
        changed_by: str,
        expected_version: int | None = None,
    ) -> FlagChange:
        """Change a flag in a transaction of its own."""

        async def work(connection: AsyncConnection, _attempt: int) -> Done[FlagChange]:
            await self._dialect.lock_flags(connection)
            found = (
                await connection.execute(
                    select(flags.c.value, flags.c.version).where(*_this(name, scope))
                )
            ).one_or_none()
            before, actual_version = (None, 0) if found is None else found
            if expected_version is not None and actual_version != expected_version:
                raise FlagConflict(name, expected_version, actual_version)
            if before is None and value is not None and scope.tenant:
                await _require_room(connection)
            statement = select(_NEWEST.scalar_subquery() + 1, self._dialect.now_us)
            version, now_us = (await connection.execute(statement)).one()
            change = FlagChange(
                version=version,
                name=name,
                scope=scope,
                before=before,
                after=value,
                changed_by=changed_by,
                changed_at_us=now_us,
            )
            await _write(connection, change)
            return Done(change, 2)

        return await self._transactions.write(work)

    async def changes(
        self, *, limit: int, before_version: int | None = None
    ) -> Sequence[FlagChange]:
        """Read a page of the history."""
        statement = select(flag_changes).order_by(flag_changes.c.version.desc()).limit(limit)
        if before_version is not None:
            statement = statement.where(flag_changes.c.version < before_version)
        return [
            FlagChange(
                version=row["version"],
                name=row["name"],
                scope=Scope(row["tenant"], row["run_id"]),
                before=row["value_before"],
                after=row["value_after"],
                changed_by=row["changed_by"],
                changed_at_us=row["changed_at_us"],
            )
            for row in await self._transactions.read(statement)
        ]


def _this(name: str, scope: Scope) -> tuple[ColumnElement[bool], ...]:
    return (
        flags.c.tenant == scope.tenant,
        flags.c.run_id == scope.run_id,
        flags.c.name == str(name),
    )


async def _require_room(connection: AsyncConnection) -> None:
    if (await connection.execute(_OVERRIDES)).scalar_one() >= MAX_OVERRIDES:
        message = f"{MAX_OVERRIDES} flags of tenants and runs are set, which is the limit"
        raise InvalidField("tenant", message, limit=MAX_OVERRIDES)


async def _write(connection: AsyncConnection, change: FlagChange) -> None:
    key = {"tenant": change.scope.tenant, "run_id": change.scope.run_id, "name": str(change.name)}
    this = _this(change.name, change.scope)
    if change.after is None:
        await connection.execute(delete(flags).where(*this))
    else:
        values = {
            "value": change.after,
            "version": change.version,
            "set_by": change.changed_by,
            "set_at_us": change.changed_at_us,
        }
        if change.before is None:
            await connection.execute(insert(flags).values(**key, **values))
        else:
            await connection.execute(update(flags).where(*this).values(**values))
    await connection.execute(
        insert(flag_changes).values(
            **key,
            version=change.version,
            value_before=change.before,
            value_after=change.after,
            changed_by=change.changed_by,
            changed_at_us=change.changed_at_us,
        )
    )
