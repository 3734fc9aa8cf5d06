"""A whole service over the store in memory, with hands on everything that may fail."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from statekeep_server.batching.detached import Detached
from statekeep_server.batching.group_commit import GroupLimits
from statekeep_server.config import Settings
from statekeep_server.domain.model import CheckpointType, RunKey, SaveCommand
from statekeep_server.flags import Environment, Flags
from statekeep_server.paths import compose, head_cache
from statekeep_server.service.facade import StateFacade
from statekeep_server.service.flag_follower import FlagFollower
from statekeep_server.service.groups import open_groups
from statekeep_server.service.monitor import open_monitor
from statekeep_server.storage.memory_flag_store import MemoryFlagStore
from statekeep_server.storage.memory_store import MemoryStateStore
from statekeep_server.telemetry.instruments import Metric
from statekeep_server.telemetry.measures import Points
from statekeep_server.telemetry.save_events import SaveEvent, SaveLines
from tests.support.clock import ManualClock
from tests.support.faults import FaultyCache, FaultyStore

RUN = RunKey("default", "run-1")


@dataclass
class World:
    """Both paths over one memory; `standard` and `optimized` are their faulty stores.

    Requests obey `flags`, which a test sets; `follower` is what the admin service shows. What
    monitoring says is in `events`, all of it once the world is closed.
    """

    clock: ManualClock
    memory: MemoryStateStore
    standard: FaultyStore
    optimized: FaultyStore
    heads: FaultyCache
    detached: Detached
    follower: FlagFollower
    events: list[SaveEvent]
    flags: Flags = field(default_factory=lambda: Flags(enable_optimized_persistence=True))

    facade: StateFacade = field(init=False)


@asynccontextmanager
async def open_world(
    *,
    grouped: bool = True,
    tell: SaveLines | None = None,
    memory: MemoryStateStore | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """Open a service on the optimized path; `grouped` lets its saves share transactions.

    `tell` takes what monitoring says. With the `memory` of another world it is a second server.
    """
    clock = ManualClock()
    numbers = itertools.count(1 if memory is None else 500_001)

    def new_id() -> str:
        return f"id-{next(numbers):06}"

    configured = Settings(database_url="memory", **settings)
    memory = memory or MemoryStateStore(clock, new_id)
    optimized = FaultyStore(memory)
    async with AsyncExitStack() as stack:
        groups = None
        if grouped:
            groups = await stack.enter_async_context(open_groups(optimized, GroupLimits()))
        events: list[SaveEvent] = []
        monitor = await stack.enter_async_context(
            open_monitor(clock, wanted=lambda: world.flags.monitoring, write=tell or events.extend)
        )
        detached = await stack.enter_async_context(Detached())
        world = World(
            clock=clock,
            memory=memory,
            standard=FaultyStore(memory),
            optimized=optimized,
            heads=FaultyCache(head_cache(configured, clock)),
            detached=detached,
            follower=FlagFollower(Environment(), MemoryFlagStore(clock), configured.limits),
            events=events,
        )
        world.facade = compose(
            standard_store=world.standard,
            optimized_store=world.optimized,
            heads=world.heads,
            groups=groups,
            settings=configured,
            flags=lambda: world.flags,
            detached=detached,
            clock=clock,
            new_id=new_id,
            monitor=monitor,
        )
        yield world


def points(world: World, metric: Metric) -> Points:
    """Read what a service measures, by labels."""
    (reading,) = (each for each in world.facade.readings() if each.metric is metric)
    return reading.points


def command(state: object = None, **options: Any) -> SaveCommand:
    """Make an automatic save of a JSON state."""
    options.setdefault("key", RUN)
    options.setdefault("checkpoint_type", CheckpointType.AUTO)
    body = state if isinstance(state, bytes) else json.dumps(state or {"step": 1}).encode()
    return SaveCommand(state=body, **options)
