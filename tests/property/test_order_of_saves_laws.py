"""Saves of a run that are begun one after the other end in that order, whatever fails meanwhile."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.domain.errors import StateError, StorageUnavailable
from statekeep_server.domain.model import Newest, SaveResult
from statekeep_server.flags import Flags
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.ports import Append, Probe, Standing
from tests.support.faults import FaultyStore
from tests.support.world import RUN, command, open_world

steps = st.lists(
    st.tuples(
        st.sampled_from("AB"),
        st.integers(0, 6),  # how long the caller waits before the next save
        st.sampled_from([None, None, None, True, False]),  # the flag is set
    ),
    min_size=1,
    max_size=14,
)
# For each call of a method in turn: whether it fails, and by what.
fates = st.lists(st.sampled_from([None, None, "POOL_TIMEOUT", "OTHER"]), max_size=12)


class SlowStore(FaultyStore):
    """A store whose calls take a few rounds of the event loop, each as told."""

    def __init__(self, store: FaultyStore, delays: list[int]) -> None:
        super().__init__(store.store)
        self.delays = delays

    async def _pass(self) -> None:
        for _ in range(self.delays.pop() if self.delays else 1):
            await asyncio.sleep(0)

    async def barrier(self, probes: Sequence[Probe]) -> Sequence[Standing]:
        await self._pass()
        return await super().barrier(probes)

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        await self._pass()
        return await super().append_many(appends, atomic=atomic)

    def _called(self, method: str) -> None:
        fate = self.faults.get(method)
        if fate and isinstance(fate[0], NoFault):
            fate.pop(0)
            self.calls.append(method)
        else:
            super()._called(method)


class NoFault(Exception):
    """A call that goes well."""


def _faults(causes: list[str | None]) -> list[Exception]:
    return [NoFault() if cause is None else StorageUnavailable(cause) for cause in causes]


@settings(max_examples=300, deadline=None)
@given(steps, fates, fates, st.lists(st.integers(0, 5), max_size=30))
async def test_the_last_save_stands(
    saves: list[tuple[str, int, bool | None]],
    barriers: list[str | None],
    appends: list[str | None],
    delays: list[int],
) -> None:
    async with open_world() as world:
        await world.facade.save(command({"at": "A"}))
        slow = SlowStore(world.optimized, delays)
        slow.faults = {"barrier": _faults(barriers), "append_many": _faults(appends)}
        world.optimized.store = slow
        world.standard.store = SlowStore(world.standard, delays)
        tasks: list[asyncio.Task[SaveAck]] = []
        for name, pause, optimized in saves:
            if optimized is not None:
                world.flags = Flags(enable_optimized_persistence=optimized)
            tasks.append(await world.facade.begin_save(command({"at": name})))
            for _ in range(pause):
                await asyncio.sleep(0)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        acks = [ack for ack in done if isinstance(ack, SaveAck)]
        assert len(acks) == len(done), [error for error in done if isinstance(error, StateError)]
        versions = [ack.result.version for ack in acks]
        assert versions == sorted(versions)
        loaded = await world.memory.load(RUN, Newest())
        assert loaded.snapshot.state == command({"at": saves[-1][0]}).state
        assert loaded.head_version == versions[-1]


kinds = st.lists(
    st.tuples(
        st.sampled_from("ABC"),
        st.integers(0, 4),  # how long the caller waits before the next save
        st.sampled_from(["late", "late", "late", "durable", "batch", "write", "load"]),
    ),
    min_size=1,
    max_size=16,
)


@settings(max_examples=200, deadline=None)
@given(kinds, fates, fates, st.lists(st.integers(0, 5), max_size=40))
async def test_the_last_save_stands_though_some_may_be_late(
    steps: list[tuple[str, int, str]],
    barriers: list[str | None],
    appends: list[str | None],
    delays: list[int],
) -> None:
    """Saves of all kinds at once, while what is held is being written and the path fails."""
    async with open_world() as world:
        await world.facade.save(command({"at": "first"}))
        slow = SlowStore(world.optimized, delays)
        slow.faults = {"barrier": _faults(barriers), "append_many": _faults(appends)}
        world.optimized.store = slow
        world.standard.store = SlowStore(world.standard, delays)
        tasks: list[asyncio.Task[SaveAck]] = []
        others: list[asyncio.Task[object]] = []
        last = "first"
        async with asyncio.TaskGroup() as group:
            for name, pause, kind in steps:
                if kind == "write":
                    world.clock.advance(1)
                    others.append(group.create_task(world.facade.write_behind.write_due()))
                elif kind == "load":
                    others.append(group.create_task(world.facade.load(RUN, Newest())))
                elif kind == "batch":
                    # A batch is not begun in the order of its arrival, so it waits for the others.
                    await asyncio.gather(*tasks)
                    await world.facade.save_many([command({"at": name})])
                    last = name
                else:
                    save = command({"at": name}, write_behind=kind == "late")
                    tasks.append(await world.facade.begin_save(save))
                    last = name
                for _ in range(pause):
                    await asyncio.sleep(0)
        acks = await asyncio.gather(*tasks)
        await world.facade.write_behind.drain(10)
        found = world.facade.statistics().write_behind
        assert (found.superseded, found.lost, found.pending) == (0, 0, 0)
        assert found.buffered == found.persisted + found.skipped + found.coalesced
        versions = [ack.result.version for ack in acks if ack.result.version]
        assert versions == sorted(versions)
        loaded = await world.memory.load(RUN, Newest())
        assert loaded.snapshot.state == command({"at": last}).state
