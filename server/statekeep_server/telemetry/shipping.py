"""The way of telemetry to a collector: a bounded queue, and a thread that sends what is in it.

Putting never blocks and never fails: what finds no room is dropped and counted. A collector that
is dead, slow or refusing only ever holds the thread.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger("statekeep.telemetry")


class Shipping(Generic[T]):
    """Sends items in batches from a thread of its own.

    Args:
        send: Sends a batch and says whether it was taken. It may block, and gives up after a time
            of its own; `cancel` ends it earlier.
        cancel: Makes a send under way fail soon, and all later ones at once.
        max_items: That wait.
        batch_items: Sent together.
        delay_s: How long an item may wait for others.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[T]], bool],
        cancel: Callable[[], None],
        *,
        max_items: int,
        batch_items: int,
        delay_s: float,
    ) -> None:
        self.dropped = 0
        self._name = name
        self._told = False
        self._send = send
        self._cancel = cancel
        self._max_items = max_items
        self._batch_items = min(batch_items, max_items)
        self._delay_s = delay_s
        self._queue: deque[T] = deque()
        self._sending = 0
        self._wake = threading.Event()
        self._closing = False
        self._given_up = False
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        # A daemon: one that hangs in the network must not keep the process.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item, or drop it."""
        if len(self._queue) >= self._max_items or self._closing:
            self.dropped += 1
            return
        self._queue.append(item)
        if len(self._queue) == self._batch_items:
            self._wake.set()

    async def close(self, bound_s: float) -> None:
        """Send what waits, for so long at most; what is left is dropped and counted."""
        self._closing = True
        self._wake.set()
        try:
            async with asyncio.timeout(bound_s):
                await self._ended.wait()
        except TimeoutError:
            self._given_up = True
            self.dropped += len(self._queue) + self._sending
            self._queue.clear()
        # Closing what is being used may wait for a lock of the library's: not on the event loop.
        threading.Thread(target=self._cancel, daemon=True).start()

    def _work(self) -> None:
        while True:
            if len(self._queue) < self._batch_items and not self._closing:
                self._wake.wait(self._delay_s)
            self._wake.clear()
            self._send_some()
            if self._closing and not self._queue:
                break
        self._tell_the_end()

    def _send_some(self) -> None:
        batch: list[T] = []
        while self._queue and len(batch) < self._batch_items:
            batch.append(self._queue.popleft())
        if not batch:
            return
        self._sending = len(batch)
        try:
            taken = self._send(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch may be taken
            taken = False
            if not self._told:
                self._told = True  # once: it would come back with every batch
                logger.warning("%s cannot be sent: %s", self._name, type(error).__name__)
        self._sending = 0
        if not taken and not self._given_up:
            self.dropped += len(batch)

    def _tell_the_end(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ended.set)
