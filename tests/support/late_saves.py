"""What tests of write-behind do: save, let time pass, take the database away."""

from typing import Any

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import Newest, RunKey
from statekeep_server.service.answers import SaveAck, WriteBehindStatistics
from tests.support.world import RUN, World, command, open_world

AWAY = StorageUnavailable("UNREACHABLE")


async def later(world: World, step: int, **options: Any) -> SaveAck:
    """Save a state that may be written later."""
    return await world.facade.save(command({"step": step}, write_behind=True, **options))


async def stored(world: World, key: RunKey = RUN) -> tuple[int, bytes | None]:
    """What stands in the database."""
    loaded = await world.memory.load(key, Newest())
    return loaded.snapshot.version, loaded.snapshot.state


def counts(world: World) -> WriteBehindStatistics:
    """What was counted; it always adds up."""
    found = world.facade.statistics().write_behind
    fates = found.persisted + found.skipped + found.coalesced + found.superseded + found.lost
    assert found.buffered == fates + found.pending
    assert (found.pending_bytes == 0) == (found.pending == 0)
    return found


def out_of_order(world: World, error: Exception = AWAY) -> None:
    """No save gets through on either path."""
    for store in (world.standard, world.optimized):
        store.always["append_many"] = error


def in_order(world: World) -> None:
    for store in (world.standard, world.optimized):
        store.always.clear()


async def write(world: World) -> None:
    """Let the time pass after which all that is held is due, and write it."""
    world.clock.advance(10)
    await world.facade.write_behind.write_due()


def another_server(world: World) -> Any:
    """A second server over the same memory."""
    return open_world(memory=world.memory)
