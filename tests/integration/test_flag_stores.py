"""The flags of a fleet: every store, two operators at once, and a database that goes away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.config import Settings
from statekeep_server.domain.errors import FlagConflict, InvalidField, StorageUnavailable
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import Path, RunKey
from statekeep_server.flags import ENABLE, FLEET, LOG_LEVEL, ROLLOUT, Environment, Scope
from statekeep_server.paths import open_flags
from statekeep_server.service.flag_follower import FlagFollower, following
from statekeep_server.service.ports import FlagStore
from statekeep_server.storage import flag_store, memory_flag_store
from statekeep_server.storage.flag_store import open_flag_store
from statekeep_server.storage.memory_flag_store import MemoryFlagStore
from statekeep_server.storage.tables import flags
from tests.support.clock import ManualClock

ACME = Scope("acme")


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
)
def url(request: pytest.FixtureRequest) -> str:
    """A fresh database, or the word `memory`."""
    if request.param == "memory":
        return "memory"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
async def stores(url: str) -> AsyncIterator[tuple[FlagStore, FlagStore]]:
    """Two servers' stores of the same flags."""
    if url == "memory":
        store = MemoryFlagStore(ManualClock())
        yield store, store
        return
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(open_flag_store(url)) for _ in range(2)]
        yield one, other


Stores = tuple[FlagStore, FlagStore]


async def test_what_one_server_sets_the_other_reads(stores: Stores) -> None:
    one, other = stores
    assert await other.version() == 0
    assert (await other.read()).flags == ()
    await one.change(ENABLE, FLEET, "true", changed_by="ann")
    change = await one.change(ENABLE, ACME, "false", changed_by="bob")
    assert (change.version, change.before, change.after) == (2, None, "false")
    found = await other.read()
    assert found.version == await other.version() == 2
    assert [(f.name, f.scope, f.value, f.version, f.set_by) for f in found.flags] == [
        (ENABLE, FLEET, "true", 1, "ann"),
        (ENABLE, ACME, "false", 2, "bob"),
    ]
    assert all(flag.set_at_us > 0 for flag in found.flags)


async def test_the_history_tells_every_change(stores: Stores) -> None:
    one, other = stores
    for value in ("10", "50", None, None):
        await one.change(ROLLOUT, FLEET, value, changed_by="ann")
    told = [(c.version, c.before, c.after) for c in await other.changes(limit=10)]
    assert told == [(4, None, None), (3, "50", None), (2, "10", "50"), (1, None, "10")]
    page = await other.changes(limit=2, before_version=4)
    assert [change.version for change in page] == [3, 2]
    assert (await other.read()).flags == ()


async def test_two_operators_at_once_lose_nothing(stores: Stores) -> None:
    """The last one stands, and the history shows each with what it replaced."""
    values = [str(number) for number in range(1, 21)]
    await asyncio.gather(
        *(
            stores[number % 2].change(ROLLOUT, FLEET, value, changed_by=value)
            for number, value in enumerate(values)
        )
    )
    history = list(reversed(await stores[0].changes(limit=100)))
    assert [change.version for change in history] == list(range(1, 21))
    assert sorted(str(change.after) for change in history) == sorted(values)
    assert [change.before for change in history] == [None, *(c.after for c in history[:-1])]
    (flag,) = (await stores[1].read()).flags
    assert (flag.value, flag.version) == (history[-1].after, 20)


async def test_of_two_operators_that_expect_the_same_one_is_refused(stores: Stores) -> None:
    answers = await asyncio.gather(
        *(
            store.change(LOG_LEVEL, FLEET, level, changed_by=level, expected_version=0)
            for store, level in zip(stores, ("DEBUG", "ERROR"), strict=True)
        ),
        return_exceptions=True,
    )
    (refused,) = [answer for answer in answers if isinstance(answer, BaseException)]
    assert isinstance(refused, FlagConflict)
    assert refused.metadata["actual_version"] == "1"
    assert await stores[0].version() == 1
    await stores[0].change(LOG_LEVEL, FLEET, None, changed_by="x", expected_version=1)


async def test_overrides_are_bounded(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (flag_store, memory_flag_store):
        monkeypatch.setattr(module, "MAX_OVERRIDES", 2)
    for tenant in ("a", "b"):
        await stores[0].change(ENABLE, Scope(tenant), "true", changed_by="")
    with pytest.raises(InvalidField, match="limit"):
        await stores[0].change(ENABLE, Scope("c"), "true", changed_by="")
    await stores[0].change(ENABLE, Scope("a"), "false", changed_by="")  # not a new one
    await stores[0].change(ENABLE, FLEET, "true", changed_by="")
    await stores[0].change(ENABLE, Scope("a"), None, changed_by="")
    await stores[0].change(ENABLE, Scope("c"), "true", changed_by="")


class DeadStore(MemoryFlagStore):
    """A store whose database can go away."""

    dead = False
    polls = 0

    async def version(self) -> int:
        self.polls += 1
        if self.dead:
            raise StorageUnavailable("UNREACHABLE")
        return await super().version()


async def test_a_dead_database_keeps_the_last_flags(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "statekeep")
    store = DeadStore(ManualClock())
    await store.change(ENABLE, FLEET, "true", changed_by="ann")
    follower = FlagFollower(Environment(), store, Limits())
    async with asyncio.timeout(30), following(follower, interval_s=0.001):
        assert follower().path is Path.OPTIMIZED
        store.dead = True
        await polled(store)
        await polled(store)
        assert follower().path is Path.OPTIMIZED
        await store.change(ENABLE, FLEET, "false", changed_by="bob")
        await polled(store)
        assert follower().path is Path.OPTIMIZED
        store.dead = False
        while follower().path is Path.OPTIMIZED:
            await asyncio.sleep(0.001)
    said = [record.message for record in caplog.records]
    assert sum("cannot be read" in line for line in said) == 1
    assert "Flags can be read again" in said
    assert said[0] == "Using optimized state persistence"
    assert said[-1] in {"Using standard state persistence", "Flags can be read again"}
    (changed,) = [line for line in said if line.startswith("Flag changed")]
    assert "from=true to=false by='bob' version=2" in changed


async def polled(store: DeadStore) -> None:
    """Wait until a poll began after now, and ended."""
    seen = store.polls
    while store.polls < seen + 2:
        await asyncio.sleep(0.001)


async def test_nonsense_is_refused_before_it_is_stored(sqlite_url: str) -> None:
    async with open_flags(Settings(database_url=sqlite_url)) as follower:
        for name, scope, value, field in (
            ("NO_FLAG", FLEET, "true", "name"),
            (ENABLE, FLEET, "yess", "value"),
            (ROLLOUT, FLEET, "101", "value"),
            (ROLLOUT, Scope("acme", "run"), "10", "run_id"),
            (LOG_LEVEL, ACME, "DEBUG", "tenant"),
            (ENABLE, Scope("", "run"), "true", "tenant"),
            (ENABLE, Scope("a\nb"), "true", "tenant"),
        ):
            with pytest.raises(InvalidField) as refused:
                await follower.change(name, scope, value, changed_by="ann")
            assert refused.value.field == field
        with pytest.raises(InvalidField):
            await follower.change(ENABLE, FLEET, "true", changed_by="an\x1bn")
        assert await follower.changes(limit=10) == []


async def test_stored_nonsense_is_ignored_and_said(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_flags(Settings(database_url=database_url)) as follower:
        engine = create_async_engine(database_url, poolclass=NullPool)
        async with engine.begin() as connection:
            row = {"tenant": "", "run_id": "", "version": 1, "set_by": "x", "set_at_us": 1}
            await connection.execute(insert(flags).values(name=ENABLE.value, value="maybe", **row))
        await follower.change(ROLLOUT, FLEET, "100", changed_by="ann")
        assert follower().path is Path.STANDARD
    (line,) = [r.message for r in caplog.records if "ignored" in r.message]
    assert "'maybe' is none of true, 1, yes, on, false, 0, no, off" in line


async def test_a_watcher_hears_every_change(sqlite_url: str) -> None:
    heard: list[str | None] = []
    async with open_flags(Settings(database_url=sqlite_url)) as follower:
        follower.watch(lambda flags: heard.append(flags.log_level))
        await follower.change(LOG_LEVEL, FLEET, "debug", changed_by="ann")
        await follower.change(LOG_LEVEL, FLEET, None, changed_by="ann")
        assert follower().path_of(RunKey("a", "b")) is Path.STANDARD
    assert heard == [None, "DEBUG", None]
