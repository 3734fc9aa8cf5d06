"""Saves of the standard path on PostgreSQL: two statements, and never on a head that has moved."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from statekeep_server.domain.errors import CommitUnknown, RequestIdReused, VersionConflict
from statekeep_server.domain.model import Newest, RunKey, SaveResult
from statekeep_server.service.ports import Append
from statekeep_server.storage.lane import Wire
from statekeep_server.storage.one_statement import STATEMENT
from statekeep_server.storage.sql_store import SqlStateStore
from tests.support.stores import a_store, an_append, new_key

pytestmark = pytest.mark.postgresql

BOTH = 2
LOCKED = 8
"""Statements of a locked save of a run that there is."""


@pytest.fixture
async def store(postgresql_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(postgresql_url, reads_first=True) as opened:
        yield opened


def step(key: RunKey, number: int, **options: object) -> Append:
    return an_append(key, b'{"step": %d}' % number, rules=None, **options)  # type: ignore[arg-type]  # passed on


async def statements(store: SqlStateStore, append: Append) -> tuple[SaveResult | Exception, int]:
    """Save, and count what was sent."""
    before = store.statistics().statements
    (answer,) = await store.append_many([append])
    return answer, store.statistics().statements - before


async def test_a_save_is_two_statements(store: SqlStateStore) -> None:
    key = new_key()
    for number in (1, 2, 3):
        before = store.statistics().rows_written
        answer, sent = await statements(store, step(key, number))
        assert isinstance(answer, SaveResult)
        assert (answer.version, sent) == (number, BOTH)
        assert store.statistics().rows_written - before == 4
    loaded = await store.load(key, Newest())
    assert (loaded.snapshot.state, loaded.head_version) == (b'{"step": 3}', 3)


async def test_saves_of_one_run_from_many_connections_all_happen(store: SqlStateStore) -> None:
    key = new_key()
    saves = [store.append_many([step(key, number)]) for number in range(20)]
    answers = [answer for (answer,) in await asyncio.gather(*saves)]
    versions = [answer.version for answer in answers if isinstance(answer, SaveResult)]
    assert sorted(versions) == list(range(1, 21))


async def test_what_is_not_a_first_save_goes_under_the_lock(store: SqlStateStore) -> None:
    key = new_key()
    first = step(key, 1, request_id="r")
    await store.append_many([first])
    again, sent = await statements(store, first)
    assert isinstance(again, SaveResult)
    assert (again.version, again.replayed) == (1, True)
    assert sent > BOTH
    reused, _ = await statements(store, step(key, 9, request_id="r"))
    assert isinstance(reused, RequestIdReused)
    late, sent = await statements(store, step(key, 2, attempt=2))
    assert isinstance(late, SaveResult)
    assert (late.version, sent) == (2, LOCKED)
    stale, _ = await statements(store, step(key, 3, expected_version=1))
    assert isinstance(stale, VersionConflict)


async def test_a_head_that_moves_after_the_read_is_not_written_over(
    store: SqlStateStore, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    await store.append_many([step(key, 1)])
    fetch = Wire.fetch
    async with a_store(postgresql_url) as other:

        async def overtaken(wire: Wire, text: str, *arguments: object) -> object:
            if text == STATEMENT:
                await other.append_many([step(key, 2)])
            return await fetch(wire, text, *arguments)

        monkeypatch.setattr(Wire, "fetch", overtaken)
        (answer,) = await store.append_many([step(key, 3)])
    assert isinstance(answer, SaveResult)
    assert (answer.version, answer.changed_fields) == (3, ("step",))


async def test_a_connection_that_died_unused_is_no_failure(store: SqlStateStore, dsn: str) -> None:
    key = new_key()
    await store.append_many([step(key, 1)])
    await end_connections(dsn)
    (answer,) = await store.append_many([step(key, 2)])
    assert isinstance(answer, SaveResult)
    assert answer.version == 2


async def test_a_write_without_an_answer_is_unknown(
    store: SqlStateStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    await store.append_many([step(key, 1)])
    fetch = Wire.fetch

    async def cut(wire: Wire, text: str, *arguments: object) -> object:
        rows = await fetch(wire, text, *arguments)
        if text == STATEMENT:
            raise asyncpg.ConnectionDoesNotExistError("gone")
        return rows

    with monkeypatch.context() as patched:
        patched.setattr(Wire, "fetch", cut)
        with pytest.raises(CommitUnknown):
            await store.append_many([step(key, 2, request_id="lost")])
    (again,) = await store.append_many([step(key, 2, request_id="lost", attempt=2)])
    assert isinstance(again, SaveResult)
    assert (again.version, again.replayed) == (2, True)


@pytest.fixture
def dsn(postgresql_url: str) -> str:
    return postgresql_url.replace("postgresql+asyncpg:", "postgresql:")


async def end_connections(dsn: str) -> None:
    """End all other connections of the database."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()
