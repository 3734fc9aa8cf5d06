"""Saves in one statement: one round trip, and never on a head that has moved."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from statekeep_server.domain.errors import RequestIdReused, StorageUnavailable
from statekeep_server.domain.model import Newest, Outcome, RunKey, SaveResult
from statekeep_server.service.ports import Append, Probe
from statekeep_server.storage.sql_store import SqlStateStore, StoreMemory
from tests.support.stores import a_store, an_append, new_key

MEMORY = StoreMemory(heads_bytes=1_000_000, payloads_bytes=1_000_000)

pytestmark = pytest.mark.postgresql


@pytest.fixture
async def store(postgresql_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(postgresql_url, memory=MEMORY) as opened:
        yield opened


@pytest.fixture
async def other(postgresql_url: str) -> AsyncIterator[SqlStateStore]:
    """Another server on the same database."""
    async with a_store(postgresql_url, memory=MEMORY) as opened:
        yield opened


async def save(store: SqlStateStore, *appends: Append) -> list[SaveResult]:
    results = []
    for answer in await store.append_many(appends):
        assert isinstance(answer, SaveResult), answer
        results.append(answer)
    return results


def changing(key: RunKey, step: int, **options: object) -> Append:
    return an_append(key, b'{"step": %d}' % step, **options)  # type: ignore[arg-type]  # passed on


async def test_a_save_of_a_known_run_is_one_round_trip(store: SqlStateStore) -> None:
    key = new_key()
    await save(store, changing(key, 1))
    before = store.statistics()
    (result,) = await save(store, changing(key, 2))
    after = store.statistics()
    assert result.version == 2
    assert after.statements - before.statements == 1
    assert after.rows_written - before.rows_written == 4


async def test_a_batch_of_known_runs_is_one_round_trip(store: SqlStateStore) -> None:
    keys = [new_key() for _ in range(20)]
    await save(store, *(changing(key, 1) for key in keys))
    before = store.statistics().statements
    results = await save(store, *(changing(key, step) for key in keys for step in (2, 3)))
    assert store.statistics().statements - before == 1
    assert [result.version for result in results] == [2, 3] * 20
    for key in keys:
        assert (await store.load(key, Newest())).head_version == 3


async def test_a_run_that_the_barrier_found_absent_is_created_in_one(store: SqlStateStore) -> None:
    key = new_key()
    await store.barrier([Probe(key, "r")])
    before = store.statistics().statements
    (result,) = await save(store, changing(key, 1))
    assert (result.version, store.statistics().statements - before) == (1, 1)


async def test_a_head_that_another_server_moved_is_found_out(
    store: SqlStateStore, other: SqlStateStore
) -> None:
    key, quiet = new_key(), new_key()
    await save(store, changing(key, 1), changing(quiet, 1))
    await save(other, changing(key, 2))
    moved, still = await save(store, changing(key, 3), changing(quiet, 2))
    assert (moved.version, still.version) == (3, 2)
    assert moved.changed_fields == ("step",)
    (again,) = await save(store, changing(key, 4))
    assert again.version == 4


async def test_two_servers_that_create_the_same_run(
    store: SqlStateStore, other: SqlStateStore
) -> None:
    key = new_key()
    for one in (store, other):
        await one.barrier([Probe(key, "r")])
    results = await asyncio.gather(save(store, changing(key, 1)), save(other, changing(key, 2)))
    assert sorted(result.version for (result,) in results) == [1, 2]


async def test_a_deleted_run_is_found_out(store: SqlStateStore, other: SqlStateStore) -> None:
    key = new_key()
    await save(store, changing(key, 1))
    await other.delete_run(key)
    (result,) = await save(store, changing(key, 2))
    assert result.version == 3


async def test_a_repeated_request_is_answered_under_the_lock(store: SqlStateStore) -> None:
    key, other_key = new_key(), new_key()
    first = changing(key, 1, request_id="r")
    await save(store, first, changing(other_key, 1))
    again, neighbour = await save(store, first, changing(other_key, 2))
    assert (again.version, again.replayed) == (1, True)
    assert neighbour.version == 2, "the others of the batch are saved all the same"
    answers = await store.append_many([changing(key, 9, request_id="r")])
    assert isinstance(answers[0], RequestIdReused)
    assert (await store.load(key, Newest())).head_version == 1


async def test_a_request_given_twice_in_a_batch_is_one_save(store: SqlStateStore) -> None:
    key = new_key()
    await save(store, changing(key, 1))
    twice = changing(key, 2, request_id="r")
    first, second = await save(store, twice, twice)
    assert (first.version, second.version, second.replayed) == (2, 2, True)


async def test_an_unchanged_save_is_answered_under_the_lock(store: SqlStateStore) -> None:
    key = new_key()
    await save(store, changing(key, 1))
    (result,) = await save(store, changing(key, 1))
    assert result.outcome is Outcome.SKIPPED
    await store.barrier([Probe(key, "none")])
    changed, same = await save(store, changing(key, 2), changing(key, 2))
    assert (changed.outcome, same.outcome) == (Outcome.PERSISTED, Outcome.SKIPPED)


async def test_a_writer_sequence_that_another_server_raised_is_kept(
    store: SqlStateStore, other: SqlStateStore
) -> None:
    key = new_key()
    await save(store, changing(key, 1, writer_sequence=1))
    await other.append_many([changing(key, 1, writer_sequence=5)])  # a skip raises it alone
    answers = await store.append_many([changing(key, 2, writer_sequence=3)])
    assert isinstance(answers[0], Exception)
    (result,) = await save(store, changing(key, 2, writer_sequence=6))
    assert result.version == 2


async def test_overlapping_batches_of_two_servers_do_not_deadlock(
    store: SqlStateStore, other: SqlStateStore
) -> None:
    keys = [new_key() for _ in range(12)]
    await save(store, *(changing(key, 0) for key in keys))
    await other.barrier([Probe(key, "none") for key in keys])

    async def write(one: SqlStateStore, order: list[RunKey], base: int) -> None:
        for step in range(10):
            await save(one, *(changing(key, base + step) for key in order))

    async with asyncio.timeout(60):
        await asyncio.gather(write(store, keys, 100), write(other, keys[::-1], 200))
    for key in keys:
        assert (await store.load(key, Newest())).head_version == 21


async def test_saves_of_a_failed_second_part_alone_are_answered_with_its_error(
    store: SqlStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = new_key(), new_key()
    await save(store, changing(known, 1))

    async def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("LOCKED")

    monkeypatch.setattr(store, "_append_locked", fail)
    answers = await store.append_many([changing(known, 2), changing(unknown, 1)])
    assert isinstance(answers[0], SaveResult)
    assert isinstance(answers[1], StorageUnavailable)
    with pytest.raises(StorageUnavailable):
        await store.append_many([changing(unknown, 1)])
