"""The store on a real PostgreSQL: locks, limits, lost connections, pools, poolers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import CommitUnknown, StorageUnavailable
from statekeep_server.domain.model import Newest, RunKey, SaveResult
from statekeep_server.service.ports import Probe
from statekeep_server.storage.durability import UnsafeDatabase
from statekeep_server.storage.migrate import migrate
from statekeep_server.storage.sql_store import SqlStateStore
from tests.support.postgres import Postgresql, run_postgresql
from tests.support.stores import a_store, an_append, new_key

pytestmark = pytest.mark.postgresql

HOLD = text("SELECT 1 FROM heads WHERE run_id = :run_id FOR UPDATE")


@pytest.fixture
async def below(postgresql_url: str) -> AsyncIterator[AsyncEngine]:
    """The database without the store."""
    engine = create_async_engine(postgresql_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def holding(below: AsyncEngine, *keys: RunKey) -> AsyncIterator[AsyncConnection]:
    """Hold the heads of runs, as a slow writer would."""
    async with below.connect() as connection:
        for key in keys:
            await connection.execute(HOLD, {"run_id": key.run_id})
        yield connection


async def save(store: SqlStateStore, key: RunKey, **options: Any) -> SaveResult:
    (answer,) = await store.append_many([an_append(key, rules=None, **options)])
    assert isinstance(answer, SaveResult)
    return answer


async def backends(below: AsyncEngine, what: str = "pid") -> list[Any]:
    """The store's connections, as the server sees them."""
    statement = text(
        f"SELECT {what} FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    async with below.connect() as connection:
        return list((await connection.execute(statement)).scalars())


# Locks and time limits.


async def test_a_held_run_is_locked_and_the_others_are_not(
    postgresql_url: str, below: AsyncEngine
) -> None:
    async with a_store(postgresql_url, lock_timeout_s=0.1) as store:
        held, free = new_key(), new_key()
        await store.append_many([an_append(held), an_append(free)])
        async with holding(below, held):
            with pytest.raises(StorageUnavailable) as failed:
                await save(store, held)
            assert failed.value.cause == "LOCKED"
            assert (await save(store, free)).version == 2
            # Nothing that only reads waits.
            assert (await store.barrier([Probe(held, "")]))[0].head is not None
            assert (await store.load(held, Newest())).head_version == 1
        assert (await save(store, held)).version == 2


async def test_a_statement_that_takes_too_long_is_given_up(
    postgresql_url: str, below: AsyncEngine
) -> None:
    async with a_store(postgresql_url, statement_timeout_s=0.2) as store:
        key = new_key()
        await save(store, key)
        async with holding(below, key):
            with pytest.raises(StorageUnavailable) as failed:
                await save(store, key)
            assert failed.value.cause == "TIMEOUT"
        assert (await save(store, key)).version == 2
        assert not [s for s in await backends(below, "state") if s.startswith("idle in trans")]


async def test_the_server_itself_limits_statements_and_idle_transactions(
    postgresql_url: str,
) -> None:
    """For a client that died without a word: the run must become free."""
    async with (
        a_store(postgresql_url, statement_timeout_s=2.0, lock_timeout_s=0.5) as store,
        store._engines.writer.connect() as connection,
    ):
        found = {
            name: (await connection.execute(text(f"SHOW {name}"))).scalar_one()
            for name in (
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "transaction_isolation",
            )
        }
    assert found == {
        "lock_timeout": "500ms",
        "statement_timeout": "3s",
        "idle_in_transaction_session_timeout": "6s",
        "transaction_isolation": "read committed",
    }


async def test_the_loser_of_a_deadlock_tries_again(
    postgresql: Postgresql, postgresql_url: str, below: AsyncEngine
) -> None:
    database = make_url(postgresql_url).database
    # A waiting transaction looks once, so late: the other one must be waiting by then.
    await postgresql.execute(f"ALTER DATABASE {database} SET deadlock_timeout = '1s'")
    tenant = new_key().run_id
    first, second = RunKey(tenant, "first"), RunKey(tenant, "second")
    async with a_store(postgresql_url, lock_timeout_s=30.0) as store:
        await store.append_many([an_append(first), an_append(second)])
        async with holding(below, second) as other:
            # The other one must not be the loser.
            await other.execute(text("SET LOCAL deadlock_timeout = '60s'"))
            both = [an_append(first, rules=None), an_append(second, rules=None)]
            saving = asyncio.create_task(store.append_many(both))
            while not [
                event for event in await backends(below, "wait_event_type") if event == "Lock"
            ]:
                await asyncio.sleep(0.005)
            await other.execute(HOLD, {"run_id": first.run_id})
            await other.commit()
            answers = await saving
        assert [a.version for a in answers if isinstance(a, SaveResult)] == [2, 2]


async def test_the_request_result_of_the_lock_holder_is_seen(
    postgresql_url: str, below: AsyncEngine
) -> None:
    """A request that waited for the lock of its own first attempt gets that one's answer."""
    append = an_append(new_key(), rules=None)
    async with a_store(postgresql_url) as store:
        await save(store, append.save.command.key)
        async with below.connect() as connection:
            staged = await store.append_in_session(connection, append)
            waiting = asyncio.create_task(store.append_many([append]))
            while not [
                event for event in await backends(below, "wait_event_type") if event == "Lock"
            ]:
                await asyncio.sleep(0.005)
            await connection.commit()
        (answer,) = await waiting
        assert isinstance(answer, SaveResult)
        assert answer.replayed
        assert answer.snapshot_id == staged.snapshot_id


# What a save costs.


async def test_statements_of_a_save_and_of_a_skip(postgresql_url: str) -> None:
    """BEGIN, lock, results, three inserts, the head, COMMIT; one statement for a barrier."""
    async with a_store(postgresql_url) as store:
        key = new_key()
        await save(store, key)

        async def statements(work: Any) -> int:
            before = store.statistics().statements
            await work
            return store.statistics().statements - before

        assert await statements(save(store, key)) == 8
        assert await statements(store.append_many([an_append(key) for _ in range(50)])) == 4
        many = [an_append(key, b'{"n": %d}' % n) for n in range(50)]
        assert await statements(store.append_many(many)) == 8
        assert await statements(store.barrier([Probe(key, "x")] * 50)) == 1
        assert await statements(store.load(key, Newest())) == 1
        assert await statements(save(store, new_key())) == 10


async def test_no_statement_reads_a_whole_table(postgresql_url: str, below: AsyncEngine) -> None:
    """Also with plans that were made while the tables were empty."""
    tenant = new_key().run_id
    keys = [RunKey(tenant, f"run-{n}") for n in range(60)]
    async with a_store(
        postgresql_url, PoolSettings(pool_size=1, max_overflow=0, pool_timeout_s=5)
    ) as store:
        for n, key in enumerate(keys):
            await store.append_many([an_append(key, thread_id=f"t{n % 3}", user_id="u")])
            await store.barrier([Probe(key, "x")])
            await store.load(key, Newest())
            await store.list_snapshots(key, limit=5)
            await store.list_runs(tenant, limit=5, thread_id="t1")
            await store.list_runs(tenant, limit=5, user_id="u")
            await store.list_runs(tenant, limit=5)
            await store.sweep(limit=5, request_results_before_us=0)
            if n < 3:
                # Now the planner knows for certain how small the tables are.
                async with below.connect() as connection:
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                    await connection.execute(text("VACUUM ANALYZE"))
        await store.append_many([an_append(key, rules=None) for key in keys])
        for key in keys[::2]:
            await store.delete_run(key)
    async with below.connect() as connection:
        scans = text("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0")
        while True:
            used = text("SELECT sum(idx_scan) FROM pg_stat_user_tables WHERE relname = 'heads'")
            if ((await connection.execute(used)).scalar() or 0) >= len(keys):
                break
            await connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        found = {row.relname for row in await connection.execute(scans)}
    assert found <= {"statekeep_schema_version"}


# Pools.


async def test_an_exhausted_pool_says_so(postgresql_url: str, below: AsyncEngine) -> None:
    pool = PoolSettings(pool_size=1, max_overflow=1, pool_timeout_s=0.1)
    async with a_store(postgresql_url, pool) as store:
        key = new_key()
        await save(store, key)
        async with holding(below, key):
            waiting = [asyncio.create_task(save(store, key)) for _ in range(2)]
            while store.statistics().pool.checked_out < 2:  # type: ignore[union-attr]  # has one
                await asyncio.sleep(0.005)
            with pytest.raises(StorageUnavailable) as failed:
                await store.load(key, Newest())
            assert failed.value.cause == "POOL_TIMEOUT"
        assert sorted([(await one).version for one in waiting]) == [2, 3]
        found = store.statistics().pool
        assert found is not None
        assert (found.pool_size, found.max_overflow, found.pool_timeout_s) == (1, 1, 0.1)
        assert (found.checked_out, found.idle) == (0, 1)


async def test_the_server_tells_how_many_connections_it_gives(
    postgresql: Postgresql, postgresql_url: str
) -> None:
    async with a_store(postgresql_url) as store:
        limit = await store.connection_limit()
        (row,) = await postgresql.execute("SELECT current_setting('max_connections')::int AS n")
        assert limit is not None
        assert 0 < limit < row["n"]
        database = make_url(postgresql_url).database
        await postgresql.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 7")
        assert await store.connection_limit() == 7


# Lost connections.


def on_commit(engine: Engine, work: Any) -> None:
    """Do something when the next COMMIT is about to be sent."""

    def act(connection: Connection) -> None:
        await_only(work(connection.connection.driver_connection))

    event.listen(engine, "commit", act, once=True)


async def test_a_dead_connection_is_replaced_unnoticed(
    postgresql_url: str, below: AsyncEngine
) -> None:
    """Reads and saves go on when a pool's connections were cut between two calls."""
    async with a_store(postgresql_url) as store:
        key = new_key()
        for _ in range(2):
            await save(store, key)
            await cut(below)
            assert (await store.load(key, Newest())).head_version == 1
            await cut(below)
            assert (await save(store, key)).version == 2
            await cut(below)
            assert await store.delete_run(key) == 2
            await cut(below)
            assert (await store.barrier([Probe(key, "")]))[0].head is not None
            key = new_key()


async def cut(below: AsyncEngine) -> None:
    """Cut all connections of the store, and wait until they are gone."""
    while await backends(below, "pg_terminate_backend(pid)"):
        await asyncio.sleep(0)


async def test_a_connection_that_breaks_at_commit_is_unknown(
    postgresql_url: str, below: AsyncEngine
) -> None:
    """Not committed here; nobody could know. The retry saves."""
    append = an_append(new_key())
    async with a_store(postgresql_url) as store:
        on_commit(store._engines.writer.sync_engine, lambda _driver: cut(below))
        with pytest.raises(CommitUnknown) as failed:
            await store.append_many([append])
        assert failed.value.cause == "UNREACHABLE"
        (answer,) = await store.append_many([append])
        assert isinstance(answer, SaveResult)
        assert (answer.replayed, answer.version) == (False, 1)


async def test_an_answer_that_is_lost_after_the_commit_is_unknown(postgresql_url: str) -> None:
    """Committed here. The retry finds it and saves nothing."""
    append = an_append(new_key())

    async def commit_and_break(driver: Any) -> None:
        await driver.execute("COMMIT")
        driver.terminate()

    async with a_store(postgresql_url) as store:
        on_commit(store._engines.writer.sync_engine, commit_and_break)
        with pytest.raises(CommitUnknown):
            await store.append_many([append])
        (answer,) = await store.append_many([append])
        assert isinstance(answer, SaveResult)
        assert (answer.replayed, answer.version) == (True, 1)


@pytest.mark.parametrize(("code", "cause", "commits"), [("40001", None, 2), ("23514", "OTHER", 1)])
async def test_a_commit_that_the_database_refuses_is_known(
    postgresql_url: str, below: AsyncEngine, code: str, cause: str | None, commits: int
) -> None:
    """It answered: nothing was committed. The victim of another transaction tries again."""
    async with below.begin() as connection:
        for statement in (
            "CREATE SEQUENCE commits",
            f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('commits') = 1 THEN
                  RAISE EXCEPTION 'refused' USING ERRCODE = '{code}';
                END IF; RETURN NULL; END $$""",
            """CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON snapshots
               DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()""",
        ):
            await connection.execute(text(statement))
    key = new_key()
    async with a_store(postgresql_url) as store:
        if cause is None:
            assert (await save(store, key)).version == 1
        else:
            with pytest.raises(StorageUnavailable) as failed:
                await save(store, key)
            assert not isinstance(failed.value, CommitUnknown)
            assert failed.value.cause == cause
            assert (await store.barrier([Probe(key, "")]))[0].head is None
    async with below.connect() as connection:
        used = (await connection.execute(text("SELECT last_value FROM commits"))).scalar_one()
        assert used == commits


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgresql]:
    """A server that tests may stop; not where an external one is named."""
    with run_postgresql() as server:
        yield server


@pytest.fixture
async def own_url(own_server: Postgresql) -> AsyncIterator[str]:
    async with own_server.database() as url:
        yield url


async def test_a_server_that_is_down_and_comes_back(own_server: Postgresql, own_url: str) -> None:
    async with a_store(own_url) as store:
        key = new_key()
        await save(store, key)
        own_server.stop()
        try:
            for work in (store.load(key, Newest()), save(store, key), store.check()):
                with pytest.raises(StorageUnavailable) as failed:
                    await work
                assert failed.value.cause == "UNREACHABLE"
        finally:
            own_server.start()
        assert (await store.load(key, Newest())).head_version == 1
        assert (await save(store, key)).version == 2
        await store.check()


async def test_a_server_that_does_not_answer_is_given_up(own_url: str) -> None:
    """A frozen server: statements and COMMIT end in time, and new connections go on."""
    below = create_async_engine(own_url, poolclass=NullPool)
    pool = PoolSettings(pool_size=1, max_overflow=0, pool_timeout_s=5)
    async with a_store(own_url, pool, statement_timeout_s=0.3) as store:
        key = new_key()
        await save(store, key)
        (frozen,) = await backends(below)
        os.kill(frozen, signal.SIGSTOP)
        with pytest.raises(StorageUnavailable) as failed:
            await save(store, key)
        assert failed.value.cause == "TIMEOUT"
        os.kill(frozen, signal.SIGCONT)
        assert (await save(store, key)).version == 2

        stopped: list[int] = []

        async def freeze(driver: Any) -> None:
            stopped.append(driver.get_server_pid())
            os.kill(stopped[0], signal.SIGSTOP)

        append = an_append(key, rules=None)
        on_commit(store._engines.writer.sync_engine, freeze)
        with pytest.raises(CommitUnknown):
            await store.append_many([append])
        os.kill(stopped[0], signal.SIGCONT)
        (answer,) = await store.append_many([append])
        assert isinstance(answer, SaveResult)
        assert answer.version == 3
    await below.dispose()


async def test_a_server_that_may_lose_commits_is_refused(
    own_server: Postgresql, own_url: str
) -> None:
    for setting in ("fsync", "full_page_writes"):
        await own_server.execute(f"ALTER SYSTEM SET {setting} = off")
        await reload(own_server, setting, "off")
        with pytest.raises(UnsafeDatabase, match=f"{setting} is off"):
            async with a_store(own_url):
                pass
        async with a_store(own_url, allow_unsafe_durability=True) as store:
            await save(store, new_key())
        await own_server.execute(f"ALTER SYSTEM RESET {setting}")
        await reload(own_server, setting, "on")


async def reload(server: Postgresql, setting: str, value: str) -> None:
    await server.execute("SELECT pg_reload_conf()")
    while [dict(row) for row in await server.execute(f"SHOW {setting}")] != [{setting: value}]:
        await asyncio.sleep(0.005)


async def test_a_replica_is_refused() -> None:
    with run_postgresql() as server:
        url = server.url_of("postgres")
        await migrate(url)
        server.stop("fast")
        (server._server.pgdata / "standby.signal").touch()
        server.start()
        with pytest.raises(UnsafeDatabase, match="replica"):
            async with a_store(url):
                pass
        async with a_store(url, allow_unsafe_durability=True) as store:
            with pytest.raises(StorageUnavailable) as failed:
                await save(store, new_key())
            assert failed.value.cause == "READ_ONLY"
            with pytest.raises(StorageUnavailable) as failed:
                await store.check()
            assert failed.value.cause == "READ_ONLY"
            assert (await store.barrier([Probe(new_key(), "")]))[0].head is None


# Behind a pooler in transaction mode.


async def test_nothing_is_kept_on_the_session_behind_a_pooler(
    postgresql_url: str, below: AsyncEngine
) -> None:
    pooled = make_url(postgresql_url).update_query_dict({"prepared_statement_cache_size": "0"})
    url = pooled.render_as_string(hide_password=False)
    async with a_store(url, PoolSettings(pool_size=1, max_overflow=0, pool_timeout_s=5)) as store:
        key = new_key()
        await save(store, key)
        await store.barrier([Probe(key, "x")])
        await store.load(key, Newest())
        await store.delete_run(key)
        async with store._engines.reader.connect() as connection:
            kept = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
            assert (await connection.execute(kept)).scalar_one() == 0
            # Preparing and executing must not reach two servers.
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            assert driver.is_in_transaction()
