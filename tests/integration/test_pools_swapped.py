"""Pools are swapped under load: no request fails, and the unused one gives its connections back."""

import asyncio
import itertools

import pytest

from statekeep_server.config import Settings
from statekeep_server.domain.model import CheckpointType, Path, RunKey, SaveCommand
from statekeep_server.flags import ENABLE, FLEET
from statekeep_server.paths import open_facade, open_flags
from statekeep_server.service.clock import SystemClock
from statekeep_server.service.facade import StateFacade
from tests.support.stores import new_id

pytestmark = pytest.mark.postgresql


def open_connections(facade: StateFacade, path: Path) -> int:
    pools = {each.path: each.pool for each in facade.statistics().paths}
    pool = pools[path]
    assert pool is not None
    return pool.idle + pool.checked_out


async def test_pools_are_swapped_under_load(postgresql_url: str) -> None:
    settings = Settings(database_url=postgresql_url)
    async with (
        asyncio.timeout(90),
        open_flags(settings) as flags,
        open_facade(settings, flags=flags, clock=SystemClock(), new_id=new_id) as facade,
    ):
        stopped = False
        used: dict[Path, int] = dict.fromkeys(Path, 0)

        async def save_on(run: int) -> None:
            for step in itertools.count():
                if stopped:
                    return
                ack = await facade.save(
                    SaveCommand(
                        key=RunKey("default", f"run-{run}"),
                        state=b'{"step": %d}' % step,
                        checkpoint_type=CheckpointType.AUTO,
                    )
                )
                assert ack.fallback_cause is None
                used[ack.path] += 1

        async def serving(path: Path) -> None:
            before = used[path]
            while used[path] < before + 50:
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            for run in range(16):
                group.create_task(save_on(run))
            for value, path, other in (
                ("true", Path.OPTIMIZED, Path.STANDARD),
                ("false", Path.STANDARD, Path.OPTIMIZED),
                ("true", Path.OPTIMIZED, Path.STANDARD),
            ):
                await flags.change(ENABLE, FLEET, value, changed_by="test")
                await serving(path)
                while open_connections(facade, other):
                    await asyncio.sleep(0.01)
            stopped = True
