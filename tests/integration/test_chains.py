"""Chains of frames in a database: small, bounded, readable, and never broken by what goes."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.domain.errors import RunNotFound, StateCorrupt
from statekeep_server.domain.model import ByVersion, LoadedState, Newest, RunKey, SaveResult
from statekeep_server.storage.payloads import SEGMENT
from statekeep_server.storage.sql_store import NO_MEMORY, SqlStateStore, StoreMemory
from statekeep_server.storage.tables import heads, snapshots
from tests.support.stores import a_store, an_append, make_older, new_key

MEMORY = StoreMemory(heads_bytes=4_000_000, payloads_bytes=4_000_000)
HOUR_US = 3_600_000_000


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(database_url, poolclass=NullPool)
    yield made
    await made.dispose()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(database_url, memory=MEMORY) as opened:
        yield opened


def growing_states(steps: int) -> list[bytes]:
    """A conversation that grows by a message of some hundred bytes a step."""
    dice = random.Random(7)
    messages: list[str] = []
    states = []
    for step in range(steps):
        messages.append(" ".join(dice.choices(["agent", "tool", "plan", "result"], k=60)))
        messages.append(dice.randbytes(40).hex())
        states.append(json.dumps({"messages": messages, "step_count": step}).encode())
    return states


async def save_all(
    store: SqlStateStore, key: RunKey, states: list[bytes], **options: Any
) -> list[SaveResult]:
    results = []
    for state in states:
        (answer,) = await store.append_many([an_append(key, state, **options)])
        assert isinstance(answer, SaveResult), answer
        results.append(answer)
    return results


async def stored_bytes(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        statement = select(func.sum(func.length(snapshots.c.state)))
        return int((await connection.execute(statement)).scalar_one())


async def depths(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        statement = select(snapshots.c.depth).order_by(snapshots.c.version)
        return list((await connection.execute(statement)).scalars())


async def test_a_growing_run_is_small_and_every_version_can_be_loaded(
    store: SqlStateStore, engine: AsyncEngine
) -> None:
    key = new_key()
    states = growing_states(60)
    await save_all(store, key, states)
    assert await stored_bytes(engine) * 15 < sum(map(len, states))
    found = await depths(engine)
    assert max(found) == SEGMENT - 1 + 2, "the second segment that builds on another anchor"
    for version, state in enumerate(states, 1):
        assert (await store.load(key, ByVersion(version))).snapshot.state == state


async def test_the_standard_store_reads_what_the_other_wrote(
    store: SqlStateStore, database_url: str
) -> None:
    key = new_key()
    states = growing_states(5)
    await save_all(store, key, states)
    async with a_store(database_url, memory=NO_MEMORY) as plain:
        assert (await plain.load(key, Newest())).snapshot.state == states[-1]
        await save_all(plain, key, [b'{"plain": true}'])
    # The head is another server's now: the next frame stands alone, and all can be read.
    await save_all(store, key, [states[0]])
    assert (await store.load(key, Newest())).snapshot.state == states[0]
    assert (await store.load(key, ByVersion(5))).snapshot.state == states[-1]


async def test_a_batch_builds_on_itself(store: SqlStateStore, engine: AsyncEngine) -> None:
    key = new_key()
    states = growing_states(6)
    answers = await store.append_many([an_append(key, state) for state in states])
    assert all(isinstance(answer, SaveResult) for answer in answers)
    assert await depths(engine) == [0, 1, 2, 3, 4, 5]
    for version, state in enumerate(states, 1):
        assert (await store.load(key, ByVersion(version))).snapshot.state == state


async def test_a_deleted_run_starts_anew(store: SqlStateStore, engine: AsyncEngine) -> None:
    key = new_key()
    states = growing_states(3)
    await save_all(store, key, states)
    await store.delete_run(key)
    await save_all(store, key, states)
    assert (await depths(engine))[0] == 0
    assert (await store.load(key, Newest())).snapshot.state == states[-1]


async def test_what_goes_breaks_no_chain(
    store: SqlStateStore, engine: AsyncEngine, database_url: str
) -> None:
    """Three in the middle expire and are swept; the rest was built on them."""
    key = new_key()
    states = growing_states(8)
    await save_all(store, key, states[:1])
    first = (await store.load(key, Newest())).snapshot
    await save_all(store, key, states[1:4], expires_at_us=first.persisted_at_us + HOUR_US)
    await save_all(store, key, states[4:])
    assert await depths(engine) == list(range(8))
    await make_older(engine, 2 * HOUR_US)
    assert await store.sweep(limit=2, request_results_before_us=0) == 2
    assert await store.sweep(limit=2, request_results_before_us=0) == 1
    for version in (1, 5, 6, 7, 8):
        state = (await store.load(key, ByVersion(version))).snapshot.state
        assert state == states[version - 1]
    async with a_store(database_url) as other:
        assert (await other.load(key, Newest())).snapshot.state == states[-1]


@pytest.mark.parametrize(
    "damage",
    [
        {"state": b"nonsense"},
        {"base_version": None},
        {"base_version": 99},
        {"encoding": "brotli"},
        {"state_bytes": 1 << 30},
    ],
)
async def test_damage_is_found_and_other_versions_are_unharmed(
    store: SqlStateStore, engine: AsyncEngine, damage: dict[str, object]
) -> None:
    key, neighbour = new_key(), new_key()
    states = growing_states(4)
    await save_all(store, key, states)
    await save_all(store, neighbour, states)
    async with engine.begin() as connection:
        of_version = (snapshots.c.run_id == key.run_id, snapshots.c.version == 3)
        await connection.execute(update(snapshots).where(*of_version).values(damage))
    for version in (3, 4):
        with pytest.raises(StateCorrupt):
            await store.load(key, ByVersion(version))
    for version in (1, 2):
        assert (await store.load(key, ByVersion(version))).snapshot.state == states[version - 1]
    assert (await store.load(neighbour, Newest())).snapshot.state == states[-1]


async def test_a_chain_in_a_circle_ends(store: SqlStateStore, engine: AsyncEngine) -> None:
    key = new_key()
    await save_all(store, key, growing_states(3))
    async with engine.begin() as connection:
        await connection.execute(
            update(snapshots)
            .where(snapshots.c.run_id == key.run_id, snapshots.c.version == 2)
            .values(base_version=3)
        )
    with pytest.raises(StateCorrupt):
        await store.load(key, Newest())


async def test_what_cannot_be_read_keeps_its_base(
    store: SqlStateStore, engine: AsyncEngine
) -> None:
    key = new_key()
    states = growing_states(4)
    await save_all(store, key, states[:2], expires_at_us=4 * 10**15)
    await save_all(store, key, states[2:])
    async with engine.begin() as connection:
        row = update(snapshots).where(snapshots.c.run_id == key.run_id)
        await connection.execute(row.where(snapshots.c.version == 2).values(expires_at_us=1))
        await connection.execute(row.where(snapshots.c.version == 3).values(state=b"nonsense"))
    assert await store.sweep(limit=10, request_results_before_us=0) == 0
    assert len(await depths(engine)) == 4


async def test_what_cannot_be_read_holds_up_no_sweep(
    store: SqlStateStore, engine: AsyncEngine
) -> None:
    """Of its run only what it builds on stays, or expired rows of it would fill every sweep."""
    key, neighbour = new_key(), new_key()
    await save_all(store, key, growing_states(40), expires_at_us=4 * 10**15)
    await save_all(store, neighbour, growing_states(3), expires_at_us=4 * 10**15)
    async with engine.begin() as connection:
        row = update(snapshots).where(snapshots.c.run_id == key.run_id)
        await connection.execute(row.values(expires_at_us=snapshots.c.version))
        corrupt = row.where(snapshots.c.version == 3)
        await connection.execute(corrupt.values(expires_at_us=None, state=b"nonsense"))
        row = update(snapshots).where(snapshots.c.run_id == neighbour.run_id)
        await connection.execute(row.values(expires_at_us=100))
    while await store.sweep(limit=32, request_results_before_us=0):
        pass
    async with engine.connect() as connection:
        statement = select(snapshots.c.run_id, snapshots.c.version)
        left = {(row.run_id, row.version) for row in await connection.execute(statement)}
    assert left == {(key.run_id, 2), (key.run_id, 3)}


async def test_the_newest_is_remembered_as_it_was_saved_or_loaded(
    store: SqlStateStore, database_url: str
) -> None:
    key = new_key()
    states = growing_states(3)
    await save_all(store, key, states[:2])
    remembered = store.remembered([key]).get(key)
    assert remembered is not None
    assert (remembered.version, remembered.state) == (2, states[1])
    async with a_store(database_url, memory=MEMORY) as other:
        assert other.remembered([key]).get(key) is None
        await other.load(key, ByVersion(1))
        assert other.remembered([key]).get(key) is None, "only what stands is worth the room"
        loaded = await other.load(key, Newest())
        assert other.remembered([key]).get(key) == loaded.snapshot
        # What was loaded is built upon, too.
        await save_all(other, key, states[2:])
        assert (await other.load(key, Newest())).snapshot.state == states[2]
    async with a_store(database_url, memory=NO_MEMORY) as plain:
        await plain.load(key, Newest())
        assert plain.remembered([key]).get(key) is None


async def test_a_payload_that_is_too_large_is_not_remembered(database_url: str) -> None:
    small = StoreMemory(heads_bytes=100_000, payloads_bytes=4_000)
    async with a_store(database_url, memory=small) as store:
        key = new_key()
        states = [growing_states(1)[0], *growing_states(40)[-2:]]
        await save_all(store, key, states)
        assert store.remembered([key]).get(key) is None
        assert (await store.load(key, Newest())).snapshot.state == states[-1]


async def test_a_remembered_state_is_answered_only_while_it_stands(
    store: SqlStateStore, engine: AsyncEngine, database_url: str
) -> None:
    keys = superseded, expired, deleted, kept = [new_key() for _ in range(4)]
    states = growing_states(4)
    for key in keys:
        await save_all(store, key, states[:3])
    assert store.remembered(keys).keys() == set(keys)
    async with a_store(database_url, memory=NO_MEMORY) as other:
        await save_all(other, superseded, states[3:])
        await other.delete_run(deleted)
    async with engine.begin() as connection:
        for table in (snapshots, heads):
            row = update(table).where(table.c.run_id == expired.run_id)
            await connection.execute(row.values(expires_at_us=1))
    answers = dict(zip(keys, await store.load_newest(keys), strict=True))
    assert isinstance(answers[expired], RunNotFound)
    assert isinstance(answers[deleted], RunNotFound)
    loaded = [answers[superseded], answers[kept]]
    assert [isinstance(each, LoadedState) and each.snapshot.state for each in loaded] == [
        states[3],
        states[2],
    ]
    # A corrupt row is not hidden by what is remembered of another, nor does it harm others.
    async with a_store(database_url, memory=MEMORY) as fresh, engine.begin() as connection:
        row = update(snapshots).where(snapshots.c.run_id == kept.run_id, snapshots.c.version == 2)
        await connection.execute(row.values(state=b"nonsense"))
        await connection.commit()
        corrupt, fine = await fresh.load_newest([kept, superseded])
        assert isinstance(corrupt, StateCorrupt)
        assert isinstance(fine, LoadedState)
