"""The gate before a pool: a burst waits a moment for a pooled connection before it overflows.

A pool opens a connection beyond its size for whoever finds none free, and closes it afterwards. At
a steady load of short statements that is a new connection for nearly every one of them, which
costs more than the statement. So more than `pool_size` pieces of work first wait for one of those
to end; only where they do not end soon (they wait for locks, the database is slow) is the
overflow worth its price.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_S = 0.05
"""Ten times what a statement takes, a tenth of what anybody notices."""


class Gate:
    """Lets so many in at once, and others after a moment."""

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Wait for a place, for a moment at most, and hold it."""
        holds = await self._wait()
        try:
            yield
        finally:
            if holds:
                self._places.release()

    async def _wait(self) -> bool:
        if not self._places.locked():
            return await self._places.acquire()
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._places.acquire()
        except TimeoutError:
            return False
