"""Write-behind when something fails, and when the server stops."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from statekeep_server.domain.errors import (
    CommitUnknown,
    Overloaded,
    StorageUnavailable,
    VersionConflict,
)
from statekeep_server.domain.model import Newest, Outcome, Path, RunKey
from statekeep_server.service.write_behind_writer import writing_behind
from tests.support.late_saves import (
    AWAY,
    counts,
    in_order,
    later,
    out_of_order,
    stored,
    write,
)
from tests.support.world import RUN, World, command, open_world

OTHER = RunKey("default", "run-2")


@pytest.fixture(params=[False, True], ids=["alone", "grouped"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with open_world(grouped=request.param, write_behind_give_up_s=60.0) as opened:
        await opened.facade.save(command({"step": 0}))
        yield opened


async def test_a_write_that_fails_is_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await later(world, 1)
    out_of_order(world)
    await write(world)
    assert "Write-behind could not write now: failed=1 held=1" in caplog.text
    await world.facade.write_behind.write_due()  # it rests
    assert (counts(world).flush_failures, counts(world).pending) == (1, 1)
    in_order(world)
    await write(world)
    assert await stored(world) == (2, b'{"step": 1}')
    assert (counts(world).persisted, counts(world).lost) == (1, 0)


@pytest.mark.parametrize("error", [Overloaded("the queue is full"), ValueError("surprise")])
async def test_any_failure_may_pass(world: World, error: Exception) -> None:
    await later(world, 1)
    out_of_order(world, error)
    await write(world)
    in_order(world)
    await write(world)
    assert counts(world).persisted == 1


async def test_a_write_whose_commit_was_lost_happens_once(world: World) -> None:
    await later(world, 1)
    world.optimized.lose_commits = 1
    world.standard.always["append_many"] = AWAY
    await write(world)
    assert (counts(world).flush_failures, counts(world).pending) == (1, 1)
    assert (await stored(world))[0] == 2  # it was committed, and nobody knows
    world.standard.always.clear()
    await write(world)
    assert (await stored(world))[0] == 2
    assert (counts(world).persisted, counts(world).superseded) == (1, 0)


async def test_a_state_that_could_not_be_written_is_not_replaced(world: World) -> None:
    """Its write may have happened: under its own request id it must be found."""
    await later(world, 1)
    out_of_order(world)
    await write(world)
    in_order(world)
    ack = await later(world, 2)
    assert ack.result.outcome is Outcome.PERSISTED
    assert counts(world).declined == {"NOT_WRITABLE": 1}
    assert counts(world).pending == 0


async def test_a_durable_save_takes_the_place_of_what_cannot_be_written(world: World) -> None:
    await later(world, 1)
    out_of_order(world, CommitUnknown())
    await write(world)
    in_order(world)
    ack = await world.facade.save(command({"step": 0}))  # equal to the head, but through the lock
    assert ack.result.outcome is Outcome.SKIPPED
    assert "barrier" not in world.optimized.calls[-1:]
    assert counts(world).coalesced == 1


async def test_a_save_that_fails_too_leaves_what_is_held(world: World) -> None:
    await later(world, 1)
    out_of_order(world)
    await write(world)
    with pytest.raises(StorageUnavailable):
        await world.facade.save(command({"step": 2}))
    assert counts(world).pending == 1
    in_order(world)
    with pytest.raises(VersionConflict):
        await world.facade.save(command({"step": 2}, expected_version=7))
    assert counts(world).pending == 1
    await write(world)
    assert await stored(world) == (2, b'{"step": 1}')


async def test_an_answer_of_old_takes_no_place(world: World) -> None:
    await world.facade.save(command({"step": 5}, request_id="old"))
    await later(world, 6)
    out_of_order(world)
    await write(world)
    in_order(world)
    ack = await world.facade.save(command({"step": 5}, request_id="old", attempt=2))
    assert ack.result.replayed
    assert counts(world).pending == 1


async def test_batches_and_deletions_take_the_place_of_what_cannot_be_written(
    world: World,
) -> None:
    await world.facade.save(command({"step": 0}, key=OTHER))
    await later(world, 1)
    await later(world, 1, key=OTHER)
    out_of_order(world)
    await write(world)
    in_order(world)
    poisoned = command({"step": 3}, key=OTHER, expected_version=9)
    await world.facade.save_many([command({"step": 2}), poisoned])
    assert (counts(world).coalesced, counts(world).pending) == (1, 1)
    assert await world.facade.delete_run(OTHER) == 1
    assert (counts(world).coalesced, counts(world).pending) == (2, 0)


async def test_a_load_does_not_wait_for_what_cannot_be_written(world: World) -> None:
    await later(world, 1)
    out_of_order(world)
    await write(world)
    calls = len(world.optimized.calls)
    loaded = await world.facade.load(RUN, Newest())
    assert loaded.snapshot.version == 1
    assert "append_many" not in world.optimized.calls[calls:]


async def test_what_cannot_be_written_for_long_is_given_up_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await later(world, 1, request_id="a")
    out_of_order(world)
    await write(world)
    world.clock.advance(60)
    await write(world)
    assert (counts(world).lost, counts(world).pending) == (1, 0)
    assert "Write-behind gave up a state: run_id=run-1 reason=STORAGE_UNAVAILABLE" in caplog.text
    in_order(world)
    # Whoever sends it again saves it after all.
    ack = await later(world, 1, request_id="a", attempt=2)
    assert (ack.result.outcome, ack.result.replayed) == (Outcome.PERSISTED, False)


async def test_what_is_refused_is_given_up_at_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await later(world, 1, expires_at_us=world.clock.now_us() + 1_000_000)
    await write(world)
    assert counts(world).lost == 1
    assert "reason=INVALID_FIELD" in caplog.text


async def test_a_buffer_whose_head_cannot_be_read_falls_back(world: World) -> None:
    world.optimized.always["barrier"] = AWAY
    ack = await later(world, 1)
    assert (ack.path, ack.result.version) == (Path.STANDARD, 2)
    assert ack.fallback_cause is not None
    assert counts(world).declined == {"STANDARD_PATH": 1}


async def test_a_write_falls_back_as_a_save_does(world: World) -> None:
    await later(world, 1)
    world.optimized.always["append_many"] = AWAY
    await write(world)
    assert counts(world).persisted == 1
    assert world.facade.statistics().paths[1].fallbacks == {"STORAGE_UNAVAILABLE": 1}


async def test_what_is_buffered_says_nothing_about_a_path(world: World) -> None:
    before = world.facade.statistics()
    await later(world, 1)
    await later(world, 2)
    after = world.facade.statistics()
    assert after.arms == tuple(
        replace(arm, statements=after.arms[index].statements)
        for index, arm in enumerate(before.arms)
    )


async def test_a_caller_that_goes_away_leaves_the_order(world: World) -> None:
    await later(world, 1)
    saving = asyncio.create_task(world.facade.save(command({"step": 2})))
    await asyncio.sleep(0)
    saving.cancel()
    ack = await world.facade.save(command({"step": 3}))
    assert ack.result.version == 4


async def test_saves_of_a_stream_keep_their_order(world: World) -> None:
    begun = [
        await world.facade.begin_save(command({"step": step}, write_behind=step % 3 != 0))
        for step in range(1, 12)
    ]
    acks = await asyncio.gather(*begun)
    versions = [ack.result.version for ack in acks if ack.result.outcome is Outcome.PERSISTED]
    assert versions == sorted(versions)
    await write(world)
    assert (await stored(world))[1] == b'{"step": 11}'
    assert counts(world).superseded == counts(world).lost == 0


async def test_a_server_that_stops_writes_all(world: World) -> None:
    await world.facade.save(command({"step": 0}, key=OTHER))
    async with writing_behind(world.facade.write_behind, max_age_s=60, drain_timeout_s=10):
        await later(world, 1)
        await later(world, 2, key=OTHER)
    assert (counts(world).persisted, counts(world).lost) == (2, 0)
    assert (await later(world, 3)).result.outcome is Outcome.PERSISTED
    assert counts(world).declined == {"STOPPING": 1}


async def test_a_save_that_comes_while_the_server_stops_is_durable(world: World) -> None:
    saving = asyncio.create_task(later(world, 1))
    while "barrier" not in world.optimized.calls:
        await asyncio.sleep(0)
    world.optimized.calls.clear()
    saving_too = asyncio.create_task(later(world, 2, key=OTHER))
    await world.facade.write_behind.drain(10)
    await asyncio.gather(saving, saving_too)
    assert counts(world).pending == 0


async def test_a_server_that_stops_tries_again(world: World) -> None:
    await later(world, 1)
    for store in (world.standard, world.optimized):
        store.faults["append_many"] = [AWAY]
    await world.facade.write_behind.drain(10)
    assert (counts(world).persisted, counts(world).flush_failures) == (1, 1)


async def test_a_server_that_stops_without_a_database_says_what_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await later(world, 1)
    out_of_order(world)
    await world.facade.write_behind.drain(0.01)
    assert (counts(world).lost, counts(world).pending) == (1, 0)
    assert "Write-behind gave up a state: run_id=run-1 reason=STOPPING" in caplog.text


async def test_a_server_that_is_told_twice_hurries(world: World) -> None:
    await later(world, 1)
    out_of_order(world)

    async def serve() -> None:
        async with writing_behind(world.facade.write_behind, max_age_s=60, drain_timeout_s=3600):
            await asyncio.Event().wait()

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()
    assert counts(world).lost == 1


async def test_an_attempt_that_outlives_the_server_is_counted_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await later(world, 1)
    entered, goes_on = asyncio.Event(), asyncio.Event()

    class Hanging:
        def __init__(self, store: Any) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def append_many(self, *_: Any, **__: Any) -> Any:
            entered.set()
            await goes_on.wait()
            raise AWAY

    for store in (world.standard, world.optimized):
        store.store = Hanging(store.store)
    draining = asyncio.create_task(world.facade.write_behind.drain(0.01))
    await entered.wait()
    await draining
    assert counts(world).lost == 1
    caplog.clear()
    world.clock.advance(100)
    goes_on.set()
    while world.detached.running:
        await asyncio.sleep(0)
    assert counts(world).lost == 1
    assert "gave up" not in caplog.text


async def test_the_writer_looks_by_itself(world: World) -> None:
    async with writing_behind(world.facade.write_behind, max_age_s=0, drain_timeout_s=0):
        await later(world, 1)
        world.clock.advance(10)
        async with asyncio.timeout(30):
            while counts(world).pending:
                await asyncio.sleep(0.001)
    assert counts(world).persisted == 1
