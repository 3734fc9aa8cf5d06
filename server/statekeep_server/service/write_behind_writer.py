"""The writer of write-behind: looks now and then for what is due, and writes all at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from statekeep_server.service.write_behind import WriteBehind

SHORTEST_PAUSE_S = 0.01
"""Between two looks: a maximal age of 0 means soon, and not a loop without a pause."""

LONGEST_DRAIN_S = 5.0
"""A slow database takes a full buffer in less. With the drain of calls before it (20 s) it ends
before the 30 s after which Kubernetes kills."""

HURRIED_DRAIN_S = 1.0
"""For the drain of a server that was told twice to stop: time for a database that answers."""


@asynccontextmanager
async def writing_behind(
    write_behind: WriteBehind, *, max_age_s: float, drain_timeout_s: float
) -> AsyncIterator[None]:
    """Write what is due while the context is open, and on the way out everything.

    Args:
        write_behind: Whose states.
        max_age_s: A state is due at half of it, and noticed within the other half.
        drain_timeout_s: What cannot be written within it, or LONGEST_DRAIN_S, is given up.
    """
    drain_s = min(drain_timeout_s, LONGEST_DRAIN_S)

    async def write_forever() -> None:
        while True:
            await asyncio.sleep(max(SHORTEST_PAUSE_S, max_age_s / 2))
            await write_behind.write_due()

    task = asyncio.create_task(write_forever())
    try:
        yield
    except asyncio.CancelledError:
        drain_s = min(drain_s, HURRIED_DRAIN_S)
        raise
    finally:
        task.cancel()
        await asyncio.wait([task])
        await write_behind.drain(drain_s)
