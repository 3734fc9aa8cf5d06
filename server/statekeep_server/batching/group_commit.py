"""Group commit: whatever queued while the previous transaction was in flight forms the next one.

One worker takes a batch, hands it to `commit`, and gives each waiter its own answer. There is no
timer that a lone item would wait for: only while items arrive so fast that a short pause promises
at least four more does the worker make that pause. Batches and the queue are bounded by items and
bytes.

What each waiter may rely on: it is answered exactly once, on every way out. Waiting may be
cancelled without touching the commit. An item whose time is over is answered before it is
dispatched. When a batch fails for a reason that may be one item's own, its items are tried one by
one, so that the poisoned one alone fails.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from statekeep_server.domain.values import value_class

T = TypeVar("T")
R = TypeVar("R")

PROMISED_ITEMS = 4
"""A pause is worth it when at least so many more arrive meanwhile."""

BUSY_TURN_S = 0.00004
"""A turn of an idle event loop took 2.5 microseconds, handling one call 100 and more."""

IDLE_TURNS = 3
"""The thread in which gRPC waits for the network needs a moment to hand over what came."""


class Closed(Exception):
    """The group takes no more items: it is being left."""


class QueueFull(Exception):
    """The queue is at its limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the queue is at its limit of {limit}")
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """The bounds of batches and of the queue.

    Attributes:
        max_items: Of a batch. Beyond 64 rows a transaction grows no faster per row.
        max_bytes: Of a batch; one item may exceed it alone.
        max_queue_items, max_queue_bytes: Of what waits.
        gather_s: How long a batch may wait for a busy event loop to bring more.
        quiet_s: How long of this without one more item; a loop that is busy with other calls only
            brings none.
        pause_s: The pause of a busy worker, in whole milliseconds, which is what the event
            loop's timers know; 0 for none.
    """

    max_items: int = 64
    max_bytes: int = 4 * 1024 * 1024
    max_queue_items: int = 4_096
    max_queue_bytes: int = 256 * 1024 * 1024
    gather_s: float = 0.05
    quiet_s: float = 0.006
    pause_s: float = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """What a group did since it was entered.

    Attributes:
        sizes: Batches by their number of items.
        waiting: Items in the queue now.
        oldest_s: The age of the one that waits longest; 0.0 when none does.
    """

    batches: int
    items: int
    sizes: Mapping[int, int]
    retried_items: int
    waiting: int
    waiting_bytes: int
    oldest_s: float


class _ArrivalRate:
    """Estimates how many items arrive per second, by the last few dozen arrivals."""

    WEIGHT = 0.05
    """Of the newest gap: twenty arrivals are remembered."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._last_s = now_s()
        self._mean_gap_s = 1.0

    def arrived(self) -> None:
        now_s = self._now_s()
        # One long gap says that the burst is over, not that items come every hour.
        gap_s = min(now_s - self._last_s, 1.0)
        self._last_s = now_s
        self._mean_gap_s += (gap_s - self._mean_gap_s) * self.WEIGHT

    def promised_in(self, seconds: float) -> float:
        return seconds / max(self._mean_gap_s, 1e-6)


@value_class()
class _Waiter(Generic[T, R]):
    item: T
    size_bytes: int
    arrived_s: float
    future: asyncio.Future[R]


class GroupCommit(Generic[T, R]):
    """Commits items in groups; to be entered before it is used and left to drain it.

    Args:
        commit: Commits a batch and answers each of its items, with a result or an exception. It
            may be called again with items of a batch for which it raised.
        size_of: The bytes of an item.
        check: Raises for an item that shall not be dispatched any more.
        monotonic_s: Tells the time, finely; by default the event loop's coarse one.
        may_be_one_items_fault: Whether an error of a whole batch may be the fault of one item,
            so that trying each by itself helps.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        limits: GroupLimits,
        size_of: Callable[[T], int] = lambda _: 0,
        check: Callable[[T], None] = lambda _: None,
        monotonic_s: Callable[[], float] | None = None,
        may_be_one_items_fault: Callable[[Exception], bool] = lambda _: True,
    ) -> None:
        self._commit = commit
        self._limits = limits
        self._size_of = size_of
        self._check = check
        self._given_clock = monotonic_s
        self._may_be_one_items_fault = may_be_one_items_fault
        self._queue: deque[_Waiter[T, R]] = deque()
        self._queue_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None
        self._batches = 0
        self._items = 0
        self._sizes: Counter[int] = Counter()
        self._retried_items = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._monotonic_s = self._given_clock or loop.time
        self._rate = _ArrivalRate(self._monotonic_s)
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit what waits, then end."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item, now and in this order; the future is its answer.

        Cancelling the future gives the answer up, not the commit.

        Raises Closed or QueueFull at once.
        """
        if self._closing or self._worker is None:
            raise Closed
        limits = self._limits
        if len(self._queue) >= limits.max_queue_items:
            raise QueueFull(limits.max_queue_items)
        size_bytes = self._size_of(item)
        if self._queue and self._queue_bytes + size_bytes > limits.max_queue_bytes:
            raise QueueFull(limits.max_queue_bytes)
        self._rate.arrived()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiter(item, size_bytes, self._monotonic_s(), future))
        self._queue_bytes += size_bytes
        self._wake.set()
        return future

    def statistics(self) -> GroupStatistics:
        """Count what the group did and what waits."""
        return GroupStatistics(
            batches=self._batches,
            items=self._items,
            sizes=dict(self._sizes),
            retried_items=self._retried_items,
            waiting=len(self._queue),
            waiting_bytes=self._queue_bytes,
            oldest_s=self._monotonic_s() - self._queue[0].arrived_s if self._queue else 0.0,
        )

    async def _work(self) -> None:
        try:
            while True:
                await self._wake.wait()
                if not self._queue:
                    if self._closing:
                        return
                    self._wake.clear()
                    continue
                await self._gather()
                batch = self._take()
                if batch:
                    await self._dispatch(batch)
        finally:
            # However the worker ends, nobody is left waiting, and nobody joins.
            self._closing = True
            for waiter in self._queue:
                _fail(waiter.future, Closed())
            self._queue.clear()

    async def _gather(self) -> None:
        """Let what is on its way arrive, for as long as that costs nothing.

        While the event loop has other work, a commit would only be queued behind it: each turn of
        the loop may bring more items, and the fewer commits there are, the sooner it is done. An
        idle loop brings nothing more, unless items arrive so fast that a pause promises some.
        """
        limits = self._limits
        started_s = grew_s = turn_s = self._monotonic_s()
        items = len(self._queue)
        idle = 0
        while idle < IDLE_TURNS and not self._is_full():
            await asyncio.sleep(0)
            before_s, turn_s = turn_s, self._monotonic_s()
            idle = 0 if turn_s - before_s > BUSY_TURN_S else idle + 1
            if len(self._queue) > items:
                items, grew_s = len(self._queue), turn_s
            if turn_s - started_s >= limits.gather_s or turn_s - grew_s >= limits.quiet_s:
                return
        if (
            not self._closing
            and not self._is_full()
            and self._rate.promised_in(limits.pause_s) >= PROMISED_ITEMS
        ):
            await asyncio.sleep(limits.pause_s)

    def _is_full(self) -> bool:
        """Whether what is queued fills a batch."""
        limits = self._limits
        return len(self._queue) >= limits.max_items or self._queue_bytes >= limits.max_bytes

    def _take(self) -> list[_Waiter[T, R]]:
        """Take the next batch off the queue; answer those whose time is over."""
        batch: list[_Waiter[T, R]] = []
        batch_bytes = 0
        while self._queue and len(batch) < self._limits.max_items:
            waiter = self._queue[0]
            if batch and batch_bytes + waiter.size_bytes > self._limits.max_bytes:
                break
            self._queue.popleft()
            self._queue_bytes -= waiter.size_bytes
            try:
                self._check(waiter.item)
            except Exception as error:  # noqa: BLE001  # answered to the waiter
                _fail(waiter.future, error)
                continue
            batch.append(waiter)
            batch_bytes += waiter.size_bytes
        return batch

    async def _dispatch(self, batch: list[_Waiter[T, R]]) -> None:
        self._batches += 1
        self._items += len(batch)
        self._sizes[len(batch)] += 1
        try:
            error = await self._commit_all(batch)
            if error is None:
                return
            if len(batch) == 1 or not self._may_be_one_items_fault(error):
                for waiter in batch:
                    _fail(waiter.future, error)
                return
            for waiter in batch:
                self._retried_items += 1
                alone = await self._commit_all([waiter])
                if alone is not None:
                    _fail(waiter.future, alone)
        finally:
            # A worker that is cancelled leaves nobody of its batch waiting either.
            for waiter in batch:
                if not waiter.future.done():
                    _fail(waiter.future, Closed())

    async def _commit_all(self, batch: list[_Waiter[T, R]]) -> Exception | None:
        """Commit a batch and answer its waiters; return the error that failed it as a whole."""
        try:
            answers = await self._commit([waiter.item for waiter in batch])
        except Exception as error:  # noqa: BLE001  # answered to the waiters
            return error
        for waiter, answer in zip(batch, answers, strict=True):
            _answer(waiter.future, answer)
        return None


def _answer(future: asyncio.Future[R], answer: R | Exception) -> None:
    if isinstance(answer, Exception):
        _fail(future, answer)
    elif not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[R], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: a waiter that went away is no warning
