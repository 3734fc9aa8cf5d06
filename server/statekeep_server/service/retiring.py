"""Gives back the idle connections of a path that no run takes any more.

Each path has a pool of its own. When a change of flags leaves a path unused, its idle connections
are closed; those in use are closed once their request is done. A request that needs the path after
all (a fallback, or the flag came back) opens a new one, so nothing ever fails by this.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from statekeep_server.domain.model import Path
from statekeep_server.flags import Flags

INTERVAL_S = 0.5
"""Between two looks: nobody waits for it."""


class Releasing(Protocol):
    """Holds connections."""

    async def release_idle(self) -> bool:
        """Close idle connections; say whether none is left in use.

        Raises nothing: a connection that cannot be closed politely is dropped.
        """
        ...


class Retiring:
    """Remembers which paths went out of use and still hold connections."""

    def __init__(self, stores: Mapping[Path, Releasing]) -> None:
        self._stores = stores
        self._known: Flags | None = None
        self._retiring: set[Path] = set()

    async def look(self, flags: Flags) -> None:
        """Release what the flags leave unused."""
        if flags is not self._known:
            before = self._known
            for path in self._stores:
                went = before is not None and before.uses(path) and not flags.uses(path)
                if went:
                    self._retiring.add(path)
                elif flags.uses(path):
                    self._retiring.discard(path)
            self._known = flags
        for path in tuple(self._retiring):
            if await self._stores[path].release_idle():
                self._retiring.discard(path)


@asynccontextmanager
async def retiring(
    stores: Mapping[Path, Releasing], flags: Callable[[], Flags], *, interval_s: float = INTERVAL_S
) -> AsyncIterator[None]:
    """Retire unused paths while the context is open."""
    state = Retiring(stores)

    async def look_forever() -> None:
        while True:
            await state.look(flags())
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(look_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
