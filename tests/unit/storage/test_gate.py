"""The gate lets so many in at once, and others after a moment."""

import asyncio

import pytest

from statekeep_server.storage.gate import Gate


async def test_work_that_ends_soon_never_overflows() -> None:
    gate = Gate(3)
    inside = 0
    most = 0

    async def work() -> None:
        nonlocal inside, most
        async with gate.passed():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(60)))
    assert most == 3


async def test_work_that_does_not_end_lets_others_pass() -> None:
    gate = Gate(1)
    async with gate.passed():
        async with asyncio.timeout(10), gate.passed():
            pass
        # Who passed without a place gives none back.
        assert gate._places.locked()
    assert not gate._places.locked()


async def test_an_error_gives_the_place_back() -> None:
    gate = Gate(1)
    with pytest.raises(ValueError, match="inside"):
        async with gate.passed():
            raise ValueError("inside")
    assert not gate._places.locked()


async def test_a_cancelled_wait_takes_no_place() -> None:
    gate = Gate(1)

    async def wait() -> None:
        async with gate.passed():
            pass

    async with gate.passed():
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not gate._places.locked()
