"""Requests under a rollout: each run on its path, batches split, flags read once."""

from collections.abc import AsyncIterator

import pytest

from statekeep_server.domain.errors import StorageUnavailable, VersionConflict
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import Newest, Path, RunKey
from statekeep_server.flags import Environment, Flags, Scope, StoredFlags
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.flag_follower import FlagFollower, describe
from statekeep_server.storage.memory_flag_store import MemoryFlagStore
from tests.support.clock import ManualClock
from tests.support.world import World, command, open_world

ON = RunKey("default", "on")
OFF = RunKey("default", "off")
SOME = Flags(runs={ON: True, OFF: False})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as opened:
        opened.flags = SOME
        yield opened


async def test_each_run_takes_its_path(world: World) -> None:
    for key, path in ((ON, Path.OPTIMIZED), (OFF, Path.STANDARD)):
        assert (await world.facade.save(command(key=key))).path is path
        assert (await world.facade.load(key, Newest())).head_version == 1
    loads = {path.path: path.loads for path in world.facade.statistics().paths}
    assert loads == {Path.STANDARD: 1, Path.OPTIMIZED: 1}
    assert await world.facade.delete_run(ON) == 1


async def test_a_batch_is_split_by_path_and_answered_in_order(world: World) -> None:
    commands = [command({"n": n}, key=ON if n % 2 else OFF) for n in range(6)]
    acks = await world.facade.save_many(commands)
    assert all(isinstance(ack, SaveAck) for ack in acks)
    found = [(a.path, a.result.version) for a in acks if isinstance(a, SaveAck)]
    assert found == [(path, n) for n in (1, 2, 3) for path in (Path.STANDARD, Path.OPTIMIZED)]


async def test_an_atomic_batch_goes_whole_and_is_optimized_only_if_all_its_runs_are(
    world: World,
) -> None:
    for keys, path in (((ON, ON), Path.OPTIMIZED), ((ON, OFF), Path.STANDARD)):
        commands = [command({"n": n}, key=key) for n, key in enumerate(keys)]
        acks = await world.facade.save_many(commands, atomic=True)
        assert {ack.path for ack in acks if isinstance(ack, SaveAck)} == {path}


async def test_a_part_that_fails_does_not_take_the_other_part_with_it(world: World) -> None:
    world.standard.always["append_many"] = StorageUnavailable("UNREACHABLE")
    off, on = await world.facade.save_many([command(key=OFF), command(key=ON)])
    assert isinstance(off, StorageUnavailable)
    assert off.metadata["request_id"]
    assert isinstance(on, SaveAck)


async def test_a_refused_item_stays_one_item(world: World) -> None:
    conflict, fine = await world.facade.save_many(
        [command(key=ON, expected_version=7), command(key=OFF)]
    )
    assert isinstance(conflict, VersionConflict)
    assert isinstance(fine, SaveAck)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(), "Using standard state persistence"),
        (Flags(True), "Using optimized state persistence"),
        (Flags(True, rollout=1_050), "Using optimized state persistence for 10.5 % of runs"),
        (
            Flags(tenants={"a": 10_000}),
            "Using standard state persistence (set otherwise: tenants=1 runs=0)",
        ),
        (
            Flags(True, runs={OFF: False}),
            "Using optimized state persistence (set otherwise: tenants=0 runs=1)",
        ),
    ],
)
def test_the_log_says_which_path_serves(flags: Flags, words: str) -> None:
    assert describe(flags) == words


async def test_a_trip_is_taken_back_on_every_server_by_one_change() -> None:
    """A change that changes nothing is one all the same, and each follower tells it."""
    store = MemoryFlagStore(ManualClock())
    asked, other = (FlagFollower(Environment(), store, Limits()) for _ in range(2))
    heard: list[tuple[str, str, Path]] = []

    def listen(name: str, follower: FlagFollower) -> None:
        follower.watch_changes(lambda change: heard.append((name, change.name, follower().path)))

    listen("asked", asked)
    listen("other", other)
    enable = "ENABLE_OPTIMIZED_PERSISTENCE"
    await asked.change(enable, Scope(), "true", changed_by="ann")
    await asked.change(enable, Scope(), "true", changed_by="ann")
    assert heard == [("asked", enable, Path.OPTIMIZED)] * 2
    await other.refresh()
    assert heard[2:] == [("other", enable, Path.OPTIMIZED)] * 2, "after they are in force"


class Restored(MemoryFlagStore):
    """A store that a backup can replace."""

    backup: StoredFlags | None = None

    async def version(self) -> int:
        return await super().version() if self.backup is None else self.backup.version

    async def read(self) -> StoredFlags:
        return await super().read() if self.backup is None else self.backup


async def test_a_restored_database_is_followed_too() -> None:
    store = Restored(ManualClock())
    follower = FlagFollower(Environment(), store, Limits())
    await follower.change("ENABLE_OPTIMIZED_PERSISTENCE", Scope(), "true", changed_by="ann")
    assert follower().path is Path.OPTIMIZED
    store.backup = StoredFlags(version=0, flags=())
    await follower.refresh()
    assert follower().path is Path.STANDARD


async def test_a_follower_says_what_it_read_and_what_holds() -> None:
    follower = FlagFollower(Environment(), MemoryFlagStore(ManualClock()), Limits())
    await follower.start()
    assert follower.stored == await MemoryFlagStore(ManualClock()).read()
    assert "ENABLE_OPTIMIZED_PERSISTENCE" in {flag.name for flag in follower.in_force()}
