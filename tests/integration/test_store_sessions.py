"""Saves and loads on a caller's own session: staged under a savepoint, never committed by us."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from statekeep_server.domain.audit import verify_chain
from statekeep_server.domain.errors import (
    RunNotFound,
    SnapshotNotFound,
    StorageUnavailable,
    VersionConflict,
)
from statekeep_server.domain.model import ByVersion, Newest, Outcome, RunKey, SaveResult
from statekeep_server.service.ports import Probe
from statekeep_server.storage.sql_store import SqlStateStore
from tests.support.stores import a_store, an_append, new_key, read_audit

B = b'{"step": 2}'


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(database_url) as opened:
        async with opened._engines.writer.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (name text)"))
        yield opened


@pytest.fixture
async def callers(database_url: str, store: SqlStateStore) -> AsyncIterator[AsyncEngine]:
    """The caller's own engine, as its driver is without our care."""
    options: dict[str, Any] = {"connect_args": {"timeout": 0.1}} if "sqlite" in database_url else {}
    engine = create_async_engine(database_url, poolclass=NullPool, **options)
    yield engine
    await engine.dispose()


@pytest.fixture(params=["session", "connection"])
async def session(
    request: pytest.FixtureRequest, callers: AsyncEngine
) -> AsyncIterator[AsyncSession | AsyncConnection]:
    if request.param == "session":
        async with async_sessionmaker(callers)() as session:
            yield session
    else:
        async with callers.connect() as connection:
            yield connection


async def orders(store: SqlStateStore) -> int:
    async with store._engines.reader.connect() as connection:
        found: int = (await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one()
    return found


async def save(store: SqlStateStore, key: RunKey, state: bytes = b"{}") -> SaveResult:
    (answer,) = await store.append_many([an_append(key, state, rules=None)])
    assert isinstance(answer, SaveResult)
    return answer


async def test_a_staged_save_is_durable_when_its_caller_commits(
    store: SqlStateStore, session: AsyncSession | AsyncConnection, callers: AsyncEngine
) -> None:
    key = new_key()
    await session.execute(text("INSERT INTO orders VALUES ('ours')"))
    append = an_append(key)
    staged = await store.append_in_session(session, append)
    assert (staged.outcome, staged.version) == (Outcome.PERSISTED, 1)
    assert (await store.load_in_session(session, key, Newest())).snapshot.version == 1
    with pytest.raises(RunNotFound):
        await store.load(key, Newest())
    (standing,) = await store.barrier([Probe(key, append.save.command.request_id)])
    assert (standing.head, standing.earlier) == (None, None)
    await session.commit()
    assert (await store.load(key, Newest())).snapshot.snapshot_id == staged.snapshot_id
    assert await orders(store) == 1
    (again,) = await store.append_many([append])
    assert isinstance(again, SaveResult)
    assert again.replayed
    assert verify_chain(await read_audit(callers, key)) is None


async def test_a_staged_save_is_gone_when_its_caller_rolls_back(
    store: SqlStateStore, session: AsyncSession | AsyncConnection
) -> None:
    key = RunKey(new_key().run_id, "run")
    await store.append_in_session(session, an_append(key))
    await session.rollback()
    with pytest.raises(RunNotFound):
        await store.load(key, Newest())
    assert (await store.list_runs(key.tenant, limit=10)).runs == ()
    assert (await save(store, key)).version == 1


async def test_the_first_statement_of_a_session_may_be_ours(
    store: SqlStateStore, session: AsyncSession | AsyncConnection
) -> None:
    """The savepoint must not become the transaction, and end it."""
    key = new_key()
    await store.append_in_session(session, an_append(key))
    await session.execute(text("INSERT INTO orders VALUES ('ours')"))
    await session.rollback()
    assert await orders(store) == 0
    with pytest.raises(RunNotFound):
        await store.load(key, Newest())


async def test_several_saves_of_one_session_see_each_other(
    store: SqlStateStore, session: AsyncSession | AsyncConnection
) -> None:
    key, other = new_key(), new_key()
    first = await store.append_in_session(session, an_append(key))
    skipped = await store.append_in_session(session, an_append(key))
    second = await store.append_in_session(session, an_append(key, B))
    elsewhere = await store.append_in_session(session, an_append(other, B))
    assert (skipped.outcome, skipped.snapshot_id) == (Outcome.SKIPPED, first.snapshot_id)
    assert (second.version, elsewhere.version) == (2, 1)
    await session.commit()
    assert (await store.load(key, ByVersion(1))).head_version == 2


async def test_a_refused_save_leaves_the_rest_of_the_session(
    store: SqlStateStore, session: AsyncSession | AsyncConnection
) -> None:
    key = RunKey(new_key().run_id, "run")
    await session.execute(text("INSERT INTO orders VALUES ('ours')"))
    with pytest.raises(VersionConflict):
        await store.append_in_session(session, an_append(key, expected_version=7))
    with pytest.raises(SnapshotNotFound):
        await store.load_in_session(session, key, ByVersion(1))
    await session.commit()
    assert await orders(store) == 1
    assert (await store.barrier([Probe(key, "")]))[0].head is None
    assert (await store.list_runs(key.tenant, limit=10)).runs == ()


async def test_a_run_that_another_writer_holds_is_locked(
    store: SqlStateStore, session: AsyncSession | AsyncConnection, callers: AsyncEngine
) -> None:
    """Soon, not after the store's own patience; and the session can still be used."""
    key = new_key()
    await save(store, key)
    async with callers.connect() as holder:
        await store.append_in_session(holder, an_append(key, B))
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_in_session(session, an_append(key, b'{"step": 3}'))
        assert failed.value.cause == "LOCKED"
        assert (await store.load_in_session(session, key, Newest())).head_version == 1
        await session.rollback()
        await holder.rollback()
    assert (await store.append_in_session(session, an_append(key, B))).version == 2
    await session.commit()


async def test_a_new_run_that_another_writer_is_creating_is_locked(
    store: SqlStateStore, session: AsyncSession | AsyncConnection, callers: AsyncEngine
) -> None:
    key = new_key()
    async with callers.connect() as holder:
        await store.append_in_session(holder, an_append(key))
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_in_session(session, an_append(key))
        assert failed.value.cause == "LOCKED"
        await session.rollback()
        await holder.commit()
    assert (await store.append_in_session(session, an_append(key, B))).version == 2
    await session.rollback()


async def test_nothing_of_the_store_is_used(
    store: SqlStateStore, session: AsyncSession | AsyncConnection
) -> None:
    """Not its pool, and so not its counters either."""
    before = store.statistics()
    await store.append_in_session(session, an_append(new_key()))
    await session.commit()
    after = store.statistics()
    assert (after.rows_written, after.statements) == (before.rows_written, before.statements)


async def test_what_is_no_session_of_this_database_is_refused(
    store: SqlStateStore, tmp_path: Any
) -> None:
    with pytest.raises(TypeError, match="not str"):
        await store.append_in_session("session", an_append(new_key()))
    with pytest.raises(TypeError, match="not Engine"):
        await store.load_in_session(store._engines.writer.sync_engine, new_key(), Newest())
    if store._engines.dialect.name == "postgresql":
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
        async with engine.connect() as connection:
            with pytest.raises(TypeError, match="a session on postgresql, not on sqlite"):
                await store.append_in_session(connection, an_append(new_key()))
        await engine.dispose()


# What is special about each database.


@pytest.mark.postgresql
async def test_the_callers_own_lock_timeout_comes_back(postgresql_url: str) -> None:
    engine = create_async_engine(postgresql_url, poolclass=NullPool)
    async with a_store(postgresql_url) as store, engine.connect() as connection:
        await connection.execute(text("SET LOCAL lock_timeout = '12345ms'"))
        key = new_key()
        for append in (an_append(key), an_append(key), an_append(key, expected_version=9)):
            with suppress(VersionConflict):
                await store.append_in_session(connection, append)
            shown = (await connection.execute(text("SHOW lock_timeout"))).scalar_one()
            assert shown == "12345ms"
        await connection.rollback()
    await engine.dispose()


@pytest.mark.postgresql
async def test_a_snapshot_older_than_another_writers_save_is_locked(postgresql_url: str) -> None:
    """REPEATABLE READ: the caller reads from the past, and must not write into the present."""
    engine = create_async_engine(
        postgresql_url, poolclass=NullPool, isolation_level="REPEATABLE READ"
    )
    async with a_store(postgresql_url) as store, engine.connect() as connection:
        key = new_key()
        await save(store, key)
        await store.load_in_session(connection, key, Newest())
        await save(store, key, B)
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_in_session(connection, an_append(key, rules=None))
        assert failed.value.cause == "LOCKED"
    await engine.dispose()


async def test_a_reader_that_others_overtook_cannot_write_on_sqlite(sqlite_url: str) -> None:
    engine = create_async_engine(sqlite_url, poolclass=NullPool)
    async with a_store(sqlite_url) as store, engine.connect() as connection:
        key = new_key()
        await save(store, key)
        await connection.exec_driver_sql("BEGIN")
        await store.load_in_session(connection, key, Newest())
        await save(store, key, B)
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_in_session(connection, an_append(key, rules=None))
        assert failed.value.cause == "LOCKED"
        await connection.rollback()
        assert (await store.append_in_session(connection, an_append(key, rules=None))).version == 3
        await connection.rollback()
    await engine.dispose()
