"""A fleet follows a change within one poll of each server, and polls often enough for a second."""

import asyncio

from statekeep_server.domain.limits import Limits
from statekeep_server.flags import ENABLE, FLEET, LOG_LEVEL, ROLLOUT, Environment, Scope
from statekeep_server.service.flag_follower import POLL_INTERVAL_S, FlagFollower, following
from statekeep_server.storage.memory_flag_store import MemoryFlagStore
from tests.support.clock import ManualClock


class Counting(MemoryFlagStore):
    """A store that counts the polls, and says when there was another."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.polls = 0
        self.polled = asyncio.Condition()

    async def version(self) -> int:
        self.polls += 1
        async with self.polled:
            self.polled.notify_all()
        return await super().version()

    async def polled_again(self, times: int) -> None:
        """Wait until the polls that begin from now on are so many."""
        wanted = self.polls + times
        async with self.polled:
            await self.polled.wait_for(lambda: self.polls >= wanted)


def fleet(store: MemoryFlagStore) -> list[FlagFollower]:
    """Three servers; the last one's environment says false."""
    environments = (Environment(), Environment(), Environment(enable_optimized_persistence=False))
    return [FlagFollower(each, store, Limits()) for each in environments]


def test_two_polls_fit_into_a_second() -> None:
    """A change that just missed a poll is seen by the next, with time left for the statement."""
    assert 2 * POLL_INTERVAL_S <= 1.0


async def test_one_poll_is_enough() -> None:
    store = Counting()
    changed, other, off = servers = fleet(store)
    for server in servers:
        await server.start()
    await changed.change(ENABLE, FLEET, "true", changed_by="ann")
    await other.change(ROLLOUT, FLEET, "10", changed_by="bob")
    await off.change(LOG_LEVEL, FLEET, "DEBUG", changed_by="cid")
    for server in servers:
        polls = store.polls
        await server.refresh()
        assert store.polls == polls + 1
        assert (server().version, server().rollout, server().log_level) == (3, 1_000, "DEBUG")
    enabled = [server().enable_optimized_persistence for server in servers]
    assert enabled == [True, True, False]
    # Nor does anything more special switch on what the environment says is off.
    await changed.change(ENABLE, Scope("t", "r"), "true", changed_by="ann")
    await off.refresh()
    assert not off().runs


async def test_servers_poll_by_themselves_and_go_on() -> None:
    store = Counting()
    changed, other, _ = fleet(store)
    await changed.start()
    async with following(other, interval_s=0.001):
        for version, value in enumerate(("true", "false", "true"), start=1):
            await changed.change(ENABLE, FLEET, value, changed_by="ann")
            await store.polled_again(2)  # the first may have begun before the change
            assert (other().version, other().enable_optimized_persistence) == (
                version,
                value == "true",
            )
