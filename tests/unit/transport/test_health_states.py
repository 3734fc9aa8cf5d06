"""Readiness follows the check, and the drain is for good."""

import asyncio

import pytest

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.transport.health import NOT_SERVING, SERVING, HealthServicer, polled


class Database:
    """A check that answers as told, and counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.asked = 0

    async def check(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def asked_again(self, times: int) -> None:
        """Wait until so many whole questions were put after this call."""
        target = self.asked + times + 1
        while self.asked < target:
            await asyncio.sleep(0.001)


async def test_states_follow_the_check() -> None:
    health, database = HealthServicer(("", "a", "b")), Database()
    async with polled(health, database.check, "", "a", interval_s=0.001):
        assert health._states == {"": SERVING, "a": SERVING, "b": NOT_SERVING}
        database.error = StorageUnavailable("UNREACHABLE")
        await database.asked_again(2)
        assert health._states["a"] == NOT_SERVING
        database.error = None
        await database.asked_again(2)
        assert health._states["a"] == SERVING
        database.hangs = True
        await database.asked_again(2)
        assert health._states["a"] == NOT_SERVING
    assert health._states["a"] == NOT_SERVING


async def test_one_failure_alone_is_passed_over() -> None:
    health = HealthServicer(("a",))
    seen: set[int] = set()
    asked = 0
    ended = asyncio.Event()

    async def check() -> None:
        nonlocal asked
        asked += 1
        seen.add(health._states["a"])
        if asked == 20:
            ended.set()
        if asked % 2 == 0:
            raise StorageUnavailable("LOCKED")

    async with polled(health, check, "a", interval_s=0.001):
        seen.clear()
        await ended.wait()
    assert seen == {SERVING}


async def test_a_bug_in_the_check_makes_nothing_ready_and_is_raised() -> None:
    health, database = HealthServicer(("a",)), Database()

    async def serve_until_not_ready() -> None:
        async with polled(health, database.check, "a", interval_s=0.001):
            database.error = ZeroDivisionError()
            while health._states["a"] == SERVING:
                await asyncio.sleep(0.001)

    with pytest.raises(ZeroDivisionError):
        await serve_until_not_ready()


async def test_nothing_becomes_ready_after_the_drain() -> None:
    health = HealthServicer(("a", "b"))
    health.set(True, "a", "b")
    health.drain()
    assert not health.set(True, "a")
    assert health._states == {"a": NOT_SERVING, "b": NOT_SERVING}


async def test_only_a_change_is_one() -> None:
    health = HealthServicer(("a",))
    assert health.set(True, "a")
    assert not health.set(True, "a")
    assert health.set(False, "a")
