"""The store on SQLite: the file, its locks, its limits."""

import asyncio
import gc
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, make_url, text

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import InvalidField, RunNotFound, StorageUnavailable
from statekeep_server.domain.model import Newest, RunKey, SaveResult
from statekeep_server.service.ports import Probe
from statekeep_server.storage.sql_store import SqlStateStore
from tests.support.stores import POOL, a_store, an_append, new_key


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(sqlite_url, lock_timeout_s=0.1) as opened:
        yield opened


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(make_url(sqlite_url).database or "")


async def save(store: SqlStateStore, key: RunKey, state: bytes = b"{}") -> SaveResult:
    (answer,) = await store.append_many([an_append(key, state, rules=None)])
    assert isinstance(answer, SaveResult)
    return answer


async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    async with a_store(f"sqlite:///{folder}/state.db") as store:
        await save(store, new_key())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_every_connection_is_durable(store: SqlStateStore) -> None:
    for engine in (store._engines.writer, store._engines.reader):
        async with engine.connect() as connection:
            found = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "synchronous", "page_size", "busy_timeout")
            ]
        assert found == ["wal", 2, 8_192, 100]


async def test_a_cancelled_read_gives_its_connection_back(
    store: SqlStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    key = new_key()
    await save(store, key)
    for microseconds in range(0, 3_000, 10):
        reading = asyncio.create_task(store.load(key, Newest()))
        await asyncio.sleep(microseconds / 1e6)
        reading.cancel()
        await asyncio.wait([reading])
    gc.collect()
    assert "garbage collector" not in caplog.text
    assert (await store.load(key, Newest())).head_version == 1


async def test_a_file_that_another_program_writes_is_locked(
    store: SqlStateStore, path: Path
) -> None:
    key = new_key()
    await save(store, key)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for work in (save(store, key), store.delete_run(key), store.check()):
        with pytest.raises(StorageUnavailable) as failed:
            await work
        assert failed.value.cause == "LOCKED"
    # Readers do not wait for writers.
    assert (await store.load(key, Newest())).head_version == 1
    assert (await store.barrier([Probe(key, "")]))[0].head is not None
    other.execute("ROLLBACK")
    other.close()
    assert (await save(store, key)).version == 2
    await store.check()


async def test_a_file_that_may_only_be_read(store: SqlStateStore, path: Path) -> None:
    key = new_key()
    await save(store, key)
    async with a_store(f"sqlite:///file:{path}?mode=ro&uri=true") as reader:
        assert (await reader.load(key, Newest())).head_version == 1
        for work in (save(reader, key), reader.check()):
            with pytest.raises(StorageUnavailable) as failed:
                await work
            assert failed.value.cause == "READ_ONLY"
    assert (await save(store, key)).version == 2


async def test_a_full_disk_loses_nothing_that_was_acknowledged(
    store: SqlStateStore, path: Path
) -> None:
    key = new_key()
    await save(store, key)

    async def limit_pages(pages: int) -> None:
        async with store._engines.writer.connect() as connection:
            await connection.execute(text(f"PRAGMA max_page_count = {pages}"))

    await limit_pages(1)
    with pytest.raises(StorageUnavailable) as failed:
        await save(store, key, b'"%s"' % (b"x" * 1_000_000))
    assert failed.value.cause == "FULL"
    assert (await store.load(key, Newest())).head_version == 1
    await limit_pages(1_000_000)
    assert (await save(store, key, b'"%s"' % (b"x" * 1_000_000))).version == 2


async def test_savers_queue_for_the_one_writer(sqlite_url: str) -> None:
    """Many savers at once do not meet at the file's lock, however short their patience with it."""
    async with a_store(sqlite_url, lock_timeout_s=0.001) as store:
        keys = [new_key() for _ in range(100)]
        results = await asyncio.gather(*(save(store, key) for key in keys))
    assert [result.version for result in results] == [1] * 100


async def test_a_writer_that_is_busy_for_too_long_says_so(sqlite_url: str) -> None:
    pool = PoolSettings(pool_size=10, max_overflow=15, pool_timeout_s=0.05)
    async with a_store(sqlite_url, pool) as store, store._engines.writer.connect():
        with pytest.raises(StorageUnavailable) as failed:
            await save(store, new_key())
        assert failed.value.cause == "POOL_TIMEOUT"


async def test_two_processes_may_share_a_file(sqlite_url: str) -> None:
    async with a_store(sqlite_url) as store, a_store(sqlite_url) as other:
        key = new_key()
        await asyncio.gather(*(save(s, key) for s in (store, other) * 10))
        assert (await store.load(key, Newest())).head_version == 20


async def test_there_is_no_pool_to_tune(store: SqlStateStore) -> None:
    assert store.statistics().pool is None
    assert await store.connection_limit() is None


async def test_statements_of_a_save_and_of_a_skip(store: SqlStateStore) -> None:
    """BEGIN, heads, results, three inserts, the head, COMMIT; one statement for a barrier."""
    key = new_key()
    await save(store, key)

    async def statements(work: Any) -> int:
        before = store.statistics().statements
        await work
        return store.statistics().statements - before

    assert await statements(save(store, key)) == 8
    assert await statements(store.barrier([Probe(key, "x")] * 50)) == 1
    assert await statements(store.load(key, Newest())) == 1


async def test_heads_and_results_are_found_by_their_keys(store: SqlStateStore) -> None:
    """A barrier over the tables would read all of them for every save."""
    plans: list[str] = []
    engine = store._engines.reader.sync_engine

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("EXPLAIN", "PRAGMA")):
            plans.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    key = new_key()
    await store.barrier([Probe(key, "x")])
    await store.list_runs(key.tenant, limit=5)
    await store.list_runs(key.tenant, limit=5, thread_id="t")
    await store.list_runs(key.tenant, limit=5, user_id="u")
    await store.list_snapshots(key, limit=5)
    with pytest.raises(RunNotFound):
        await store.load(key, Newest())
    event.remove(engine, "before_cursor_execute", note)
    assert len(plans) == 6
    async with store._engines.reader.connect() as connection:
        for statement in plans:
            arguments = tuple("[]" for _ in range(statement.count("?")))
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", arguments)
            steps = [row.detail for row in plan]
            assert not [
                step for step in steps if step.startswith(("SCAN heads", "SCAN snap", "SCAN req"))
            ]
            # The index has the minute; the runs of one are sorted.
            sorting = [step for step in steps if "TEMP B-TREE" in step]
            assert set(sorting) <= {"USE TEMP B-TREE FOR RIGHT PART OF ORDER BY"}, steps


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"]
)
async def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(InvalidField, match="keeps nothing"):
        async with a_store(url, POOL):
            pass
