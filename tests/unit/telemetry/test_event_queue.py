"""The queue before a writer: whatever the writer does, an offer never waits and nothing is lost
without being counted."""

import threading
from collections.abc import Callable, Sequence

import pytest

from statekeep_server.telemetry.event_queue import (
    MAX_ITEMS,
    EventQueue,
    QueueStatistics,
    open_event_queue,
)


class Writer:
    """Keeps what it is given; hangs while `release` is not set, and fails as told."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.written: list[int] = []
        self.batches = 0
        self.busy = threading.Event()
        self.release = threading.Event()
        self.error: OSError | None = None
        if not hangs:
            self.release.set()

    def __call__(self, events: Sequence[int]) -> None:
        self.batches += 1
        self.busy.set()
        self.release.wait()
        if self.error is not None:
            raise self.error
        self.written += events


def opened(writer: Callable[[Sequence[int]], None], **options: int) -> EventQueue[int]:
    queue: EventQueue[int] = EventQueue(writer, name="test", **options)
    queue.start()
    return queue


async def test_what_is_offered_is_written_in_its_order() -> None:
    writer = Writer()
    async with open_event_queue(writer, name="test") as queue:
        assert all(queue.offer(number) for number in range(500))
    assert writer.written == list(range(500))
    assert queue.statistics() == QueueStatistics(depth=0, written=500, dropped=0)


async def test_what_comes_together_is_written_together() -> None:
    writer = Writer()
    async with open_event_queue(writer, name="test") as queue:
        for number in range(500):
            queue.offer(number)
    assert writer.batches < 10


def test_a_writer_that_never_returns_costs_what_does_not_fit_and_nothing_else() -> None:
    """Also what the writer holds in its hands counts: 1,000 in all, and not 1,000 more."""
    writer = Writer(hangs=True)
    queue = opened(writer)
    assert queue.offer(0)
    writer.busy.wait()
    taken = [queue.offer(number) for number in range(1, 3 * MAX_ITEMS)]
    assert sum(taken) == MAX_ITEMS - 1
    assert queue.statistics() == QueueStatistics(MAX_ITEMS, 0, 2 * MAX_ITEMS)
    queue.close(timeout_s=0.01)  # it does not wait for the writer
    writer.release.set()


def test_a_queue_that_was_full_takes_again_once_its_writer_goes_on() -> None:
    writer = Writer(hangs=True)
    queue = opened(writer, max_items=2)
    assert [queue.offer(number) for number in range(3)] == [True, True, False]
    writer.release.set()
    while queue.statistics().depth:
        threading.Event().wait(0.001)
    assert queue.offer(3)
    queue.close()
    assert writer.written == [0, 1, 3]
    assert queue.statistics() == QueueStatistics(depth=0, written=3, dropped=1)


def test_what_cannot_be_written_is_counted_and_the_rest_is_tried() -> None:
    writer = Writer()
    writer.error = OSError(28, "No space left on device")
    queue = opened(writer)
    queue.offer(1)
    while not queue.statistics().dropped:
        threading.Event().wait(0.001)
    writer.error = None
    queue.offer(2)
    queue.close()
    assert writer.written == [2]
    assert queue.statistics() == QueueStatistics(depth=0, written=1, dropped=1)


def test_a_closed_queue_takes_nothing_and_says_so() -> None:
    writer = Writer()
    queue = opened(writer)
    queue.close()
    assert not queue.offer(1)
    assert queue.statistics() == QueueStatistics(depth=0, written=0, dropped=1)


async def test_an_error_under_the_queue_still_writes_what_was_offered() -> None:
    writer = Writer()

    async def fail() -> None:
        async with open_event_queue(writer, name="test") as queue:
            queue.offer(1)
            raise ValueError("below")

    with pytest.raises(ValueError, match="below"):
        await fail()
    assert writer.written == [1]
