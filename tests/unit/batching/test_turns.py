"""Turns are fair per key, independent between keys, and leave nothing behind."""

import asyncio

import pytest

from statekeep_server.batching.turns import Turn, Turns


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


async def test_work_that_comes_back_goes_before_what_arrived_since() -> None:
    turns: Turns[str] = Turns()
    order: list[str] = []
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def first() -> None:
        async with turns.of("run") as turn:
            turn.queue(failed)
            turn.leave()
            with pytest.raises(ValueError, match="queue"):
                await failed
            await turn.enter()
            await turn.drained()  # nothing stands before it
            order.append("first")

    async def later(name: str, *, drains: bool) -> None:
        async with turns.of("run") as turn:
            if drains:
                await turn.drained()
            order.append(name)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(first())
        tasks.create_task(later("second", drains=True))
        tasks.create_task(later("third", drains=False))
        await asyncio.sleep(0)
        failed.set_exception(ValueError("queue"))
    assert order == ["first", "second", "third"]
    assert len(turns) == 0


async def test_work_that_fails_after_its_owner_went_does_not_come_back() -> None:
    turns: Turns[str] = Turns()
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    turn = Turn(turns, "run")
    await turn.enter()
    turn.queue(work)
    turn.leave()
    turn.end()
    work.set_exception(RuntimeError("it failed"))
    async with asyncio.timeout(5), turns.of("run") as after:
        await after.drained()
    assert len(turns) == 0


async def test_what_is_queued_is_seen_until_it_is_done() -> None:
    turns: Turns[str] = Turns()
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with turns.of("run") as turn:
        turn.queue(work)
    async with turns.of("run") as turn:
        assert turn.queued == (work,)
    assert len(turns) == 1
    work.set_result(None)
    async with turns.of("run") as turn:
        await turn.drained()
        assert turn.queued == ()
    assert len(turns) == 0


async def test_a_turn_that_is_given_to_a_cancelled_waiter_goes_on() -> None:
    turns: Turns[str] = Turns()
    async with turns.of("run"):
        cancelled = asyncio.create_task(anext(_hold(turns)))
        behind = asyncio.create_task(anext(_hold(turns)))
        await asyncio.sleep(0)
    cancelled.cancel()  # it has the turn already, and has not run since
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await behind
    assert len(turns) == 1  # the generator behind holds it


async def test_only_the_holder_may_ask() -> None:
    turns: Turns[str] = Turns()
    async with turns.of("run") as turn:
        turn.leave()
        with pytest.raises(RuntimeError, match="not held"):
            turn.queue(asyncio.get_running_loop().create_future())


async def test_work_may_stand_in_line_before_it_enters() -> None:
    turns: Turns[str] = Turns()
    order: list[int] = []
    places = [Turn(turns, "run") for _ in range(4)]
    for place in places:
        place.stand()

    async def work(number: int) -> None:
        await places[number].enter()
        order.append(number)
        places[number].leave()

    places[2].leave()  # it never enters
    await asyncio.gather(*(work(number) for number in (3, 1, 0)))
    assert order == [0, 1, 3]
    assert len(turns) == 0
