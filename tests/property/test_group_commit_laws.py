"""Group commit under random arrivals, failures and cancellations."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.batching.group_commit import (
    Closed,
    GroupCommit,
    GroupLimits,
    QueueFull,
)

LIMITS = GroupLimits(
    max_items=4, max_bytes=100, max_queue_items=12, max_queue_bytes=400, pause_s=0.001
)


class Poisoned(Exception):
    """The item's own fault."""


class Broken(Exception):
    """The database's fault."""


class Late(Exception):
    """The item's time is over."""


@dataclass(frozen=True)
class Item:
    number: int
    size_bytes: int = 1
    poisoned: bool = False
    refused: bool = False
    late: bool = False


@dataclass
class Database:
    """Commits batches; a batch with a poisoned item fails as a whole, some fail anyway."""

    broken_batches: set[int] = field(default_factory=set)
    calls: int = 0
    committed: list[int] = field(default_factory=list)
    in_flight: int = 0

    async def commit(self, batch: Sequence[Item]) -> Sequence[int | Exception]:
        self.calls += 1
        assert len(batch) <= LIMITS.max_items
        assert len(batch) == 1 or sum(item.size_bytes for item in batch) <= LIMITS.max_bytes
        assert not any(item.late for item in batch)
        assert self.in_flight == 0, "one commit at a time"
        self.in_flight += 1
        try:
            await asyncio.sleep(0)
            if self.calls in self.broken_batches:
                raise Broken
            if any(item.poisoned for item in batch):
                raise Poisoned
            self.committed += [item.number for item in batch if not item.refused]
            return [ValueError("refused") if item.refused else item.number for item in batch]
        finally:
            self.in_flight -= 1


def check(item: Item) -> None:
    if item.late:
        raise Late


def group(database: Database) -> GroupCommit[Item, int]:
    return GroupCommit(
        database.commit,
        limits=LIMITS,
        size_of=lambda item: item.size_bytes,
        check=check,
        may_be_one_items_fault=lambda error: isinstance(error, Poisoned),
    )


kinds = st.sampled_from(["good"] * 6 + ["poisoned", "refused", "late"])
events = st.one_of(
    st.tuples(st.just("submit"), kinds, st.integers(1, 150)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 30)),
    st.tuples(st.just("turn"), st.just(""), st.integers(1, 4)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(events, max_size=40), st.sets(st.integers(1, 8), max_size=3))
def test_each_waiter_is_answered_exactly_once(
    script: list[tuple[str, str, int]], broken: set[int]
) -> None:
    async def play() -> None:
        database = Database(broken)
        waiters: list[tuple[Item, asyncio.Future[int]]] = []
        async with group(database) as commits:
            for what, kind, number in script:
                if what == "submit":
                    item = Item(len(waiters), number, **({} if kind == "good" else {kind: True}))
                    try:
                        waiters.append((item, commits.submit(item)))
                    except QueueFull:
                        assert commits.statistics().waiting > 0
                elif what == "cancel" and waiters:
                    waiters[number % len(waiters)][1].cancel()
                else:
                    for _ in range(number):
                        await asyncio.sleep(0)
                statistics = commits.statistics()
                assert statistics.waiting <= LIMITS.max_queue_items
                assert statistics.waiting <= 1 or statistics.waiting_bytes <= LIMITS.max_queue_bytes
        for item, future in waiters:
            assert future.done(), "leaving answers everybody"
            if future.cancelled():
                continue
            error = future.exception()
            if error is None:
                assert future.result() == item.number
                assert database.committed.count(item.number) == 1
            else:
                assert database.committed.count(item.number) == 0
                assert isinstance(error, Broken) or type(error) is {
                    item.poisoned: Poisoned,
                    item.refused: ValueError,
                    item.late: Late,
                }.get(True)
        # Cancelled ones may have been committed: never twice, and never out of order.
        assert database.committed == sorted(set(database.committed))

    asyncio.run(play())


async def test_what_queues_during_a_commit_forms_the_next_batch() -> None:
    database = Database()
    async with group(database) as commits:
        first = commits.submit(Item(0))
        await asyncio.sleep(0)
        rest = [commits.submit(Item(number)) for number in (1, 2, 3, 4)]
        assert await first == 0
        assert await asyncio.gather(*rest) == [1, 2, 3, 4]
    assert database.calls == 2
    statistics = commits.statistics()
    assert (statistics.batches, statistics.items, statistics.retried_items) == (2, 5, 0)


async def test_a_poisoned_item_alone_fails() -> None:
    database = Database()
    async with group(database) as commits:
        waiters = [commits.submit(Item(n, poisoned=n == 1)) for n in range(3)]
        answers = await asyncio.gather(*waiters, return_exceptions=True)
    assert answers[0] == 0
    assert isinstance(answers[1], Poisoned)
    assert answers[2] == 2
    assert commits.statistics().retried_items == 3


async def test_a_broken_database_fails_the_batch_at_once() -> None:
    database = Database(broken_batches={1})
    async with group(database) as commits:
        waiters = [commits.submit(Item(n)) for n in range(3)]
        answers = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Broken] * 3
    assert database.calls == 1


async def test_one_item_may_be_larger_than_a_batch() -> None:
    database = Database()
    async with group(database) as commits:
        assert await commits.submit(Item(0, size_bytes=10_000)) == 0


async def test_a_full_queue_refuses_at_once() -> None:
    async with group(Database()) as commits:
        waiters = [commits.submit(Item(n)) for n in range(LIMITS.max_queue_items)]
        with pytest.raises(QueueFull) as caught:
            commits.submit(Item(99))
        assert caught.value.limit == LIMITS.max_queue_items
        assert commits.statistics().oldest_s >= 0.0
        await asyncio.gather(*waiters)


async def test_a_queue_full_of_bytes_refuses_at_once() -> None:
    async with group(Database()) as commits:
        waiter = commits.submit(Item(0, size_bytes=300))
        with pytest.raises(QueueFull) as caught:
            commits.submit(Item(1, size_bytes=101))
        assert caught.value.limit == LIMITS.max_queue_bytes
        await waiter


async def test_it_takes_nothing_before_and_after_its_life() -> None:
    commits = group(Database())
    with pytest.raises(Closed):
        commits.submit(Item(0))
    async with commits:
        pass
    with pytest.raises(Closed):
        commits.submit(Item(0))


async def test_a_worker_that_is_cancelled_leaves_nobody_waiting() -> None:
    never = asyncio.Event()

    async def hang(batch: Sequence[Item]) -> Sequence[int | Exception]:
        await never.wait()
        return [item.number for item in batch]

    commits: GroupCommit[Item, int] = GroupCommit(hang, limits=LIMITS)
    async with commits:
        in_flight = commits.submit(Item(0))
        await asyncio.sleep(0.01)
        queued = commits.submit(Item(1))
        assert commits._worker is not None
        commits._worker.cancel()
        for waiter in (in_flight, queued):
            with pytest.raises(Closed):
                await waiter
        with pytest.raises(Closed):
            commits.submit(Item(2))


async def test_items_that_rush_in_share_a_pause() -> None:
    """With a high rate of arrival the worker waits for more before it commits."""
    database = Database()
    limits = GroupLimits(max_items=1_000, pause_s=0.002)
    commits: GroupCommit[Item, int] = GroupCommit(database.commit, limits=limits)
    async with commits:
        for _ in range(400):  # the estimate learns that items rush in
            commits._rate.arrived()
        waiters = []
        for number in range(3):
            waiters.append(commits.submit(Item(number)))
            await asyncio.sleep(0)
        await asyncio.gather(*waiters)
    assert database.calls == 1


class BusyLoop:
    """An event loop of which every turn takes a millisecond, by a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.commits: GroupCommit[Item, int] = GroupCommit(
            self._commit,
            limits=GroupLimits(max_items=1_000, gather_s=0.0505, quiet_s=0.0065),
            size_of=lambda item: item.size_bytes,
            monotonic_s=lambda: self.now_s,
        )
        self.committed: list[tuple[float, int]] = []

    async def _commit(self, batch: Sequence[Item]) -> Sequence[int | Exception]:
        self.committed.append((self.now_s, len(batch)))
        return [item.number for item in batch]

    async def turn(self, turns: int, *, items_every: int | None, size_bytes: int = 1) -> None:
        for number in range(turns):
            if items_every is not None and number % items_every == 0:
                self.commits.submit(Item(number, size_bytes))
            self.now_s += 0.001
            await asyncio.sleep(0)


async def test_a_batch_waits_for_a_busy_loop_that_brings_more() -> None:
    loop = BusyLoop()
    async with loop.commits:
        await loop.turn(30, items_every=3)
        assert not loop.committed
        await loop.turn(10, items_every=None)
    assert [size for _, size in loop.committed] == [10]


async def test_a_batch_does_not_wait_for_a_loop_that_is_busy_with_other_calls() -> None:
    loop = BusyLoop()
    async with loop.commits:
        await loop.turn(40, items_every=40)
        assert len(loop.committed) == 1
        assert loop.committed[0][0] < 0.01


async def test_a_batch_does_not_grow_for_longer_than_it_may() -> None:
    loop = BusyLoop()
    async with loop.commits:
        await loop.turn(200, items_every=1)
        assert loop.committed[0][0] < 0.055
    assert 45 <= loop.committed[0][1] <= 55


async def test_a_batch_that_is_full_of_bytes_does_not_wait() -> None:
    loop = BusyLoop()
    async with loop.commits:
        await loop.turn(8, items_every=1, size_bytes=GroupLimits().max_bytes // 4)
    committed_s, size = loop.committed[0]
    assert size == 4
    assert committed_s < 0.005
