"""Work that runs to its end whatever becomes of the caller that waits for it.

A call that is cancelled (a client that went away, a deadline) must not cancel the commit that it
started: the work runs in a task of its own, and the caller only waits for it.
"""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Detached:
    """Runs coroutines in tasks of their own; leaving it waits for all that still run."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def running(self) -> int:
        """How many have not ended, those without a waiting caller included."""
        return len(self._tasks)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Start the work and wait for its result. Cancelling the wait leaves the work alone."""
        return await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start the work, behind all that was started before; to be waited for with a shield."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, so that an error without a waiting caller is no warning
