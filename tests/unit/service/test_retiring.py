"""Which pools give their connections back when flags change."""

import asyncio

from statekeep_server.domain.model import Path
from statekeep_server.flags import Flags
from statekeep_server.service.retiring import Retiring, retiring

ON, OFF, SOME = Flags(True), Flags(), Flags(True, rollout=5_000)


class Pool:
    """Counts how often it was asked, and is busy for as long as a test says."""

    def __init__(self) -> None:
        self.asked = 0
        self.busy = False

    async def release_idle(self) -> bool:
        self.asked += 1
        return not self.busy


async def test_a_path_is_retired_once_when_it_goes_out_of_use() -> None:
    pools = {path: Pool() for path in Path}
    state = Retiring(pools)
    for flags in (OFF, OFF, SOME, SOME):
        await state.look(flags)
    assert not any(pool.asked for pool in pools.values())
    for flags in (ON, ON, ON):
        await state.look(flags)
    assert {path: pool.asked for path, pool in pools.items()} == {
        Path.STANDARD: 1,
        Path.OPTIMIZED: 0,
    }


async def test_a_busy_path_is_asked_until_it_is_idle_or_used_again() -> None:
    pools = {path: Pool() for path in Path}
    state = Retiring(pools)
    await state.look(SOME)
    pools[Path.OPTIMIZED].busy = True
    for _ in range(3):
        await state.look(OFF)
    assert pools[Path.OPTIMIZED].asked == 3
    await state.look(Flags(version=1))  # another change that leaves it unused
    assert pools[Path.OPTIMIZED].asked == 4
    await state.look(ON)
    await state.look(ON)
    assert pools[Path.OPTIMIZED].asked == 4


async def test_it_looks_for_as_long_as_it_is_open() -> None:
    pools = {path: Pool() for path in Path}
    now = [ON]
    async with asyncio.timeout(10), retiring(pools, lambda: now[0], interval_s=0.001):
        await asyncio.sleep(0)
        now[0] = OFF
        while not pools[Path.OPTIMIZED].asked:
            await asyncio.sleep(0.001)
