"""A save is whole or not at all, and a database that may lose commits is refused."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.domain.errors import CommitUnknown, StorageUnavailable
from statekeep_server.domain.model import Newest, RunKey, SaveResult
from statekeep_server.service.ports import Append, Probe
from statekeep_server.storage import engine as engine_module
from statekeep_server.storage.durability import UnsafeDatabase
from statekeep_server.storage.sql_store import SqlStateStore
from statekeep_server.storage.tables import METADATA
from tests.support.postgres import Postgresql
from tests.support.stores import a_store, an_append, new_key

SAVE_STATEMENTS = 9
"""At most: a new run takes one more than a known one."""


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(database_url) as opened:
        yield opened


@pytest.fixture
async def below(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The database without the store."""
    engine = create_async_engine(database_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


async def counts(below: AsyncEngine) -> dict[str, int]:
    """How many rows every table has."""
    async with below.connect() as connection:
        return {
            name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for name, table in METADATA.tables.items()
        }


@contextmanager
def failing_after(store: SqlStateStore, statements: int) -> Iterator[list[str]]:
    """Fail once so many statements of the store's next transactions were carried out."""
    sent: list[str] = []

    def count(_c: Connection, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)
        if len(sent) == statements:
            raise OperationalError(statement, None, RuntimeError("injected"))

    engine = store._engines.writer.sync_engine
    event.listen(engine, "after_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(engine, "after_cursor_execute", count)


@pytest.mark.parametrize("statements", range(1, SAVE_STATEMENTS + 1))
async def test_a_failure_after_any_statement_leaves_nothing(
    store: SqlStateStore, below: AsyncEngine, statements: int
) -> None:
    tenant = new_key().run_id
    known, new = RunKey(tenant, "known"), RunKey(tenant, "new")
    await store.append_many([an_append(known)])
    before, written = await counts(below), store.statistics().rows_written
    appends = [an_append(known, b'{"step": 2}'), an_append(new)]
    with failing_after(store, statements) as sent:
        try:
            await store.append_many(appends)
        except StorageUnavailable:
            assert await counts(below) == before
            assert store.statistics().rows_written == written
        else:
            # The transaction has no statement of that number.
            assert statements == SAVE_STATEMENTS > len(sent)
    answers = await store.append_many(appends)
    assert [a.version for a in answers if isinstance(a, SaveResult)] == [2, 1]
    assert (await counts(below))["heads"] == 2


@pytest.mark.parametrize("statements", range(1, 7))
async def test_a_deletion_that_fails_leaves_the_run(
    store: SqlStateStore, below: AsyncEngine, statements: int
) -> None:
    key = new_key()
    await store.append_many([an_append(key)])
    before = await counts(below)
    with failing_after(store, statements), pytest.raises(StorageUnavailable):
        await store.delete_run(key)
    assert await counts(below) == before
    assert await store.delete_run(key) == 1


async def test_a_failed_commit_is_not_acknowledged(
    store: SqlStateStore, below: AsyncEngine
) -> None:
    """An error while COMMIT is under way leaves the outcome unknown; the retry is safe."""
    append = an_append(new_key())

    def fail(_connection: Connection) -> None:
        raise OperationalError("COMMIT", None, RuntimeError("injected"))

    sync_engine = store._engines.writer.sync_engine
    event.listen(sync_engine, "commit", fail)
    with pytest.raises(CommitUnknown, match="retry with the same request id"):
        await store.append_many([append])
    event.remove(sync_engine, "commit", fail)
    assert store.statistics().rows_written == 0
    (answer,) = await store.append_many([append])
    assert isinstance(answer, SaveResult)
    assert not answer.replayed
    assert (await counts(below))["snapshots"] == 1


async def test_a_lost_acknowledgement_of_a_commit_is_found_by_the_retry(
    store: SqlStateStore, below: AsyncEngine
) -> None:
    append = an_append(new_key())

    def commit_and_fail(connection: Connection) -> None:
        connection.connection.dbapi_connection.commit()  # type: ignore[union-attr]  # it is open
        raise OperationalError("COMMIT", None, RuntimeError("injected"))

    sync_engine = store._engines.writer.sync_engine
    event.listen(sync_engine, "commit", commit_and_fail)
    with pytest.raises(CommitUnknown):
        await store.append_many([append])
    event.remove(sync_engine, "commit", commit_and_fail)
    (answer,) = await store.append_many([append])
    assert isinstance(answer, SaveResult)
    assert answer.replayed
    assert (await counts(below))["snapshots"] == 1


async def test_a_cancelled_save_is_whole_or_not_at_all(
    store: SqlStateStore, below: AsyncEngine, database_url: str
) -> None:
    """And it leaves no lock, no open transaction and no broken connection behind."""
    key = new_key()
    for turns in range(40):
        task = asyncio.create_task(store.append_many([an_append(key, rules=None)]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    (answer,) = await store.append_many([an_append(key, rules=None)])
    assert isinstance(answer, SaveResult)
    found = await counts(below)
    assert found["snapshots"] == found["audit_records"] == found["request_results"]
    assert found["snapshots"] == answer.version
    if "postgresql" in database_url:
        async with below.connect() as connection:
            open_ones = text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
            )
            assert (await connection.execute(open_ones)).scalar_one() == 0


async def test_the_barrier_sees_committed_heads_only(store: SqlStateStore) -> None:
    """While a save is under way, the barrier shows the head as it was."""
    key = new_key()
    await store.append_many([an_append(key)])
    reached, go_on = asyncio.Event(), asyncio.Event()
    write = store._appending.append

    async def pause_before_commit(*arguments: Any, **options: Any) -> Any:
        decided = await write(*arguments, **options)
        reached.set()
        await go_on.wait()
        return decided

    store._appending.append = pause_before_commit  # type: ignore[method-assign]  # for this test
    append = an_append(key, b'{"step": 2}')
    saving = asyncio.create_task(store.append_many([append]))
    await reached.wait()
    (standing,) = await store.barrier([Probe(key, append.save.command.request_id)])
    assert standing.head is not None
    assert (standing.head.version, standing.earlier) == (1, None)
    assert (await store.load(key, Newest())).head_version == 1
    go_on.set()
    await saving
    (standing,) = await store.barrier([Probe(key, append.save.command.request_id)])
    assert standing.head is not None
    assert standing.head.version == 2
    assert standing.earlier is not None


async def test_what_was_acknowledged_is_there_after_a_restart(database_url: str) -> None:
    appends: list[Append] = [an_append(new_key(), b'{"n": %d}' % n) for n in range(20)]
    async with a_store(database_url) as store:
        await store.append_many(appends)
    async with a_store(database_url) as store:
        for append in appends:
            loaded = await store.load(append.save.command.key, Newest())
            assert loaded.snapshot.state == append.save.command.state


# Databases that may lose commits.


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("setting", "value"), [("synchronous_commit", "off"), ("default_transaction_read_only", "on")]
)
async def test_settings_of_a_postgresql_database(
    postgresql: Postgresql, postgresql_url: str, setting: str, value: str
) -> None:
    database = postgresql_url.rsplit("/", 1)[-1].partition("?")[0]
    await postgresql.execute(f"ALTER DATABASE {database} SET {setting} = {value}")
    if setting == "synchronous_commit":
        with pytest.raises(UnsafeDatabase, match="synchronous_commit is off"):
            async with a_store(postgresql_url):
                pass
        async with a_store(postgresql_url, allow_unsafe_durability=True) as store:
            await store.append_many([an_append(new_key())])
        return
    async with a_store(postgresql_url) as store:
        with pytest.raises(StorageUnavailable) as refused:
            await store.append_many([an_append(new_key())])
        assert refused.value.cause == "READ_ONLY"
        with pytest.raises(StorageUnavailable) as refused:
            await store.check()
        assert refused.value.cause == "READ_ONLY"


async def test_a_sqlite_connection_that_is_not_synchronous_is_refused(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = engine_module._prepare_sqlite

    def weaken(connection: Any, record: object) -> None:
        prepare(connection, record)
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    monkeypatch.setattr(engine_module, "_prepare_sqlite", weaken)
    with pytest.raises(UnsafeDatabase, match="synchronous"):
        async with a_store(sqlite_url):
            pass


async def test_a_sqlite_file_without_wal_is_refused(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = engine_module._prepare_sqlite

    def weaken(connection: Any, record: object) -> None:
        prepare(connection, record)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = DELETE")
        cursor.close()

    monkeypatch.setattr(engine_module, "_prepare_sqlite", weaken)
    with pytest.raises((UnsafeDatabase, StorageUnavailable)):
        async with a_store(sqlite_url):
            pass
