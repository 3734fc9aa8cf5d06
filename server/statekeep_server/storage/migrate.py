"""Migrations: bring a database to the schema of this server, one server at a time."""

from dataclasses import dataclass
from typing import cast

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import SchemaMismatch
from statekeep_server.storage.engine import Engines, Timeouts, open_engines
from statekeep_server.storage.schema import SCHEMA_REVISION, VERSION_TABLE, found_revision
from statekeep_server.storage.translate import translated
from statekeep_server.storage.urls import parse_database_url

TIMEOUTS = Timeouts(statement_s=3_600, lock_s=600)
"""A migration may have to rewrite a large table, and waits for another server's to end."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """From which revision to which; None for a database that had no schema."""

    found: str | None
    reached: str


async def migrate(database_url: str) -> Migrated:
    """Apply all migrations that a database lacks, in one transaction.

    Any number of servers may do so at once: they wait for each other.

    Raises InvalidField for a bad URL, SchemaMismatch for a database newer than this server,
    StorageUnavailable.
    """
    pool = PoolSettings(pool_size=1, max_overflow=0, pool_timeout_s=TIMEOUTS.lock_s)
    url = parse_database_url(database_url)
    async with open_engines(url, pool=pool, timeouts=TIMEOUTS) as engines:
        return await migrate_with(engines)


async def migrate_with(engines: Engines) -> Migrated:
    """Apply migrations with engines that are open."""
    return await translated(_migrate(engines))


async def _migrate(engines: Engines) -> Migrated:
    async with engines.writer.begin() as connection:
        await engines.dialect.lock_migrations(connection)
        return await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> Migrated:
    config = Config()
    config.set_main_option("script_location", "statekeep_server.storage:migrations")
    config.attributes["connection"] = connection
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatch(found, SCHEMA_REVISION)
    command.upgrade(config, SCHEMA_REVISION)
    return Migrated(found, SCHEMA_REVISION)


def _revision(connection: Connection) -> str | None:
    # Asked for without an error: on PostgreSQL one would end the transaction.
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return cast("str | None", connection.execute(found_revision).scalar_one_or_none())
