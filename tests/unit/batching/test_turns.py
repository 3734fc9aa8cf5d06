"""Turns are fair per key, independent between keys, and leave nothing behind."""

import asyncio

import pytest

from statekeep_server.batching.turns import Turns


async def test_work_of_one_key_runs_in_order_of_arrival() -> None:
    turns: Turns[str] = Turns()
    order: list[int] = []

    async def work(number: int) -> None:
        async with turns.of("run"):
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))
    assert len(turns) == 0


async def test_other_keys_do_not_wait() -> None:
    turns: Turns[str] = Turns()
    async with turns.of("a"), asyncio.timeout(5), turns.of("b"):
        assert len(turns) == 2


async def test_a_cancelled_waiter_gives_its_turn_up() -> None:
    turns: Turns[str] = Turns()
    async with turns.of("run"):
        waiter = asyncio.create_task(anext(_hold(turns)))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with asyncio.timeout(5), turns.of("run"):
        pass
    assert len(turns) == 0


async def _hold(turns: Turns[str]):  # type: ignore[no-untyped-def]  # a generator for anext
    async with turns.of("run"):
        yield


async def test_many_keys_are_taken_in_order_so_that_batches_cannot_deadlock() -> None:
    turns: Turns[str] = Turns()

    async def batch(keys: list[str]) -> None:
        async with turns.of_all(keys):
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(*(batch(keys) for keys in [["a", "b"], ["b", "a"], ["b", "b", "a"]]))
    assert len(turns) == 0


async def test_an_error_inside_ends_the_turn() -> None:
    turns: Turns[str] = Turns()
    with pytest.raises(ValueError, match="inside"):
        async with turns.of("run"):
            raise ValueError("inside")
    assert len(turns) == 0
