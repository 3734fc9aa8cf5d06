"""A bounded queue before a thread of its own that writes what is in it.

Whoever offers an event never waits, whatever becomes of the writer: it may be slow, fail or hang.
What finds the queue full is dropped and counted. An event stays in the queue until it is written,
so that a writer that hangs holds no more than a full queue.

The thread looks at the queue a moment after the first event, and then writes all that has come:
waking it for each would cost its producers more than the offer.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ITEMS = 1_000
"""Events that wait at most: of saves, a quarter of a second of a busy server."""

LINGER_S = 0.02
"""From the first event to the look at all: for 1,000 of them in it, 50,000 would come a second."""

CLOSE_S = 1.0
"""For what is left at the end; a writer that hangs must not hold up a shutdown for longer."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """What a queue did since it was opened.

    Attributes:
        depth: Events that wait now, or are being written.
        written: Events that the writer took.
        dropped: Events that nobody will see: the queue was full, or the writer could not take them.
    """

    depth: int
    written: int
    dropped: int


class EventQueue(Generic[T]):
    """Takes events from one thread, or from several that take turns.

    Args:
        write: Writes some events, in the thread of the queue. Where it raises OSError, the events
            count as dropped.
        name: Of the thread.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], None], *, name: str, max_items: int = MAX_ITEMS
    ) -> None:
        self._write = write
        self._max_items = max_items
        self._events: SimpleQueue[T | None] = SimpleQueue()
        self._closing = threading.Event()
        # Each of these is written by one side only, so no lock.
        self._accepted = 0
        self._refused = 0
        self._written = 0
        self._failed = 0
        # A daemon: one that hangs in a system call for good must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, event: T) -> bool:
        """Queue an event, or drop it; never wait. Say which."""
        if self._closing.is_set() or self._depth() >= self._max_items:
            self._refused += 1
            return False
        self._accepted += 1
        self._events.put(event)
        return True

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Take no more, and wait until what is queued is written, but not for longer than this."""
        self._closing.set()
        self._events.put(None)
        self._thread.join(timeout_s)

    def statistics(self) -> QueueStatistics:
        """Count what became of the events."""
        return QueueStatistics(
            depth=self._depth(), written=self._written, dropped=self._refused + self._failed
        )

    def _depth(self) -> int:
        return self._accepted - self._written - self._failed

    def _run(self) -> None:
        ended = False
        while not ended:
            event = self._events.get()
            self._closing.wait(LINGER_S)
            events: list[T] = []
            try:
                while event is not None:
                    events.append(event)
                    event = self._events.get_nowait()
                ended = True
            except Empty:
                pass
            try:
                self._write(events)
            except OSError:
                self._failed += len(events)
            else:
                self._written += len(events)


@asynccontextmanager
async def open_event_queue(
    write: Callable[[Sequence[T]], None],
    *,
    name: str,
    max_items: int = MAX_ITEMS,
    close_s: float = CLOSE_S,
) -> AsyncIterator[EventQueue[T]]:
    """Open a queue; on the way out its last events are written, within a bound."""
    queue: EventQueue[T] = EventQueue(write, name=name, max_items=max_items)
    queue.start()
    try:
        yield queue
    finally:
        await asyncio.to_thread(queue.close, close_s)
