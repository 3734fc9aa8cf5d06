"""Migrations: they make the tables that the code knows, one server at a time, or nothing."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.domain.errors import SchemaMismatch, StorageUnavailable
from statekeep_server.storage.migrate import Migrated, migrate
from statekeep_server.storage.schema import SCHEMA_REVISION, VERSION_TABLE
from statekeep_server.storage.tables import METADATA
from tests.support.stores import a_store, an_append, new_key

INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
    FROM information_schema.columns WHERE table_schema = 'public'
      AND table_name <> 'statekeep_schema_version' ORDER BY 1, 2
"""
SQLITE_OBJECTS = """
    SELECT name, sql FROM sqlite_master
    WHERE sql IS NOT NULL AND name <> 'statekeep_schema_version' ORDER BY 1
"""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        yield connection


async def rows(url: str, statement: str) -> Sequence[Any]:
    async with connected(url) as connection:
        return (await connection.execute(text(statement))).all()


async def test_the_migrations_make_the_tables_that_the_code_knows(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
        )

    await migrate(database_url)
    async with connected(database_url) as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.postgresql
async def test_indexes_and_collations_are_equal_too(postgresql_url: str, empty_url: str) -> None:
    async with connected(empty_url) as connection:
        await connection.run_sync(METADATA.create_all)
    ours = [row for row in await rows(postgresql_url, INDEXES) if VERSION_TABLE not in row[0]]
    assert ours == await rows(empty_url, INDEXES)
    assert await rows(postgresql_url, COLUMNS) == await rows(empty_url, COLUMNS)


async def test_partial_indexes_are_equal_on_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    await migrate(sqlite_url)
    plain = f"sqlite+aiosqlite:///{tmp_path}/plain.db"
    async with connected(plain) as connection:
        await connection.run_sync(METADATA.create_all)

    def normal(found: Sequence[Any]) -> list[tuple[str, str]]:
        return [(name, " ".join(sql.split())) for name, sql in found]

    assert normal(await rows(sqlite_url, SQLITE_OBJECTS)) == normal(
        await rows(plain, SQLITE_OBJECTS)
    )


@pytest.mark.postgresql
async def test_states_are_stored_without_another_compression(postgresql_url: str) -> None:
    found = await rows(
        postgresql_url,
        "SELECT attstorage::text FROM pg_attribute "
        "WHERE attrelid = 'snapshots'::regclass AND attname = 'state'",
    )
    assert found == [("e",)]


def test_the_server_needs_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "statekeep_server.storage:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]


@pytest.mark.postgresql
async def test_migrating_says_from_where_to_where(empty_url: str) -> None:
    assert await migrate(empty_url) == Migrated(None, SCHEMA_REVISION)
    assert await migrate(empty_url) == Migrated(SCHEMA_REVISION, SCHEMA_REVISION)


@pytest.mark.postgresql
async def test_servers_may_migrate_at_the_same_time(empty_url: str) -> None:
    found = await asyncio.gather(*(migrate(empty_url) for _ in range(3)))
    assert sorted(str(one.found) for one in found) == [SCHEMA_REVISION, SCHEMA_REVISION, "None"]
    assert await rows(empty_url, f"SELECT version_num FROM {VERSION_TABLE}") == [(SCHEMA_REVISION,)]


async def test_servers_may_open_a_new_file_at_the_same_time(sqlite_url: str) -> None:
    async def save() -> object:
        async with a_store(sqlite_url) as store:
            return await store.append_many([an_append(new_key())])

    answers = await asyncio.gather(*(save() for _ in range(4)))
    assert len(answers) == 4


@pytest.mark.postgresql
async def test_a_database_without_the_schema_is_not_opened(empty_url: str) -> None:
    with pytest.raises(SchemaMismatch, match="run `statekeep migrate`") as refused:
        async with a_store(empty_url):
            pass
    assert refused.value.metadata == {"found": "", "expected": SCHEMA_REVISION}


async def test_a_newer_database_is_not_touched(database_url: str) -> None:
    await migrate(database_url)
    async with connected(database_url) as connection:
        await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999'"))
    with pytest.raises(SchemaMismatch, match="upgrade statekeep"):
        async with a_store(database_url):
            pass
    with pytest.raises(SchemaMismatch) as refused:
        await migrate(database_url)
    assert refused.value.metadata == {"found": "0999", "expected": SCHEMA_REVISION}
    assert await rows(database_url, f"SELECT version_num FROM {VERSION_TABLE}") == [("0999",)]


async def test_a_database_that_becomes_newer_fails_the_check(database_url: str) -> None:
    async with a_store(database_url) as store:
        await store.check()
        async with connected(database_url) as connection:
            await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999'"))
        with pytest.raises(SchemaMismatch):
            await store.check()


async def test_a_failed_migration_leaves_nothing(
    new_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade

    def fail_at_the_end(*arguments: Any) -> None:
        upgrade(*arguments)
        raise TimeoutError

    monkeypatch.setattr(command, "upgrade", fail_at_the_end)
    with pytest.raises(StorageUnavailable):
        await migrate(new_url)
    tables = "SELECT name FROM sqlite_master"
    if "postgresql" in new_url:
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert await rows(new_url, tables) == []


@pytest.mark.postgresql
async def test_the_tables_of_an_application_are_left_alone(empty_url: str) -> None:
    async with connected(empty_url) as connection:
        await connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
        await connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    await migrate(empty_url)
    assert await rows(empty_url, "SELECT version_num FROM alembic_version") == [("theirs",)]


@pytest.mark.postgresql
async def test_a_schema_of_its_own_can_be_named_in_the_url(empty_url: str) -> None:
    async with connected(empty_url) as connection:
        await connection.execute(text("CREATE SCHEMA statekeep"))
    url = make_url(empty_url).update_query_dict({"search_path": "statekeep"})
    named = url.render_as_string(hide_password=False)
    await migrate(named)
    async with a_store(named) as store:
        await store.append_many([an_append(new_key())])
    assert await rows(empty_url, "SELECT count(*) FROM statekeep.snapshots") == [(1,)]


async def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(StorageUnavailable):
        async with a_store(f"sqlite:///{path}"):
            pass
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(path).execute("SELECT 1 FROM heads")
