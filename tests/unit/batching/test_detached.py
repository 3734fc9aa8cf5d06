"""Detached work ends whatever becomes of its caller."""

import asyncio

import pytest

from statekeep_server.batching.detached import Detached


async def test_it_answers_with_the_result() -> None:
    async def work() -> int:
        return 7

    async with Detached() as detached:
        assert await detached.run(work()) == 7
        assert detached.running == 0


async def test_a_cancelled_caller_does_not_cancel_the_work() -> None:
    ended = asyncio.Event()
    may_end = asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        ended.set()

    async with Detached() as detached:
        caller = asyncio.create_task(detached.run(work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert detached.running == 1
        may_end.set()
        await ended.wait()


async def test_leaving_waits_for_work_without_a_caller() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0.01)
        ended.append(number)

    async with Detached() as detached:
        for number in range(3):
            caller = asyncio.create_task(detached.run(work(number)))
            await asyncio.sleep(0)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
    assert sorted(ended) == [0, 1, 2]


async def test_an_error_without_a_caller_is_no_warning() -> None:
    may_end = asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        raise ValueError("nobody waits")

    async with Detached() as detached:
        caller = asyncio.create_task(detached.run(work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        may_end.set()


async def test_an_error_reaches_the_caller() -> None:
    async def work() -> None:
        raise ValueError("to the caller")

    async with Detached() as detached:
        with pytest.raises(ValueError, match="to the caller"):
            await detached.run(work())


async def test_cancelled_work_is_cancelled_for_its_caller() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    async with Detached() as detached:
        with pytest.raises(asyncio.CancelledError):
            await detached.run(work())
