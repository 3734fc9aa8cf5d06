"""The sweeper takes everything that is due in small batches, and survives a failing database."""

import asyncio
import logging

import pytest

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import RunKey
from statekeep_server.service.clock import SystemClock
from statekeep_server.service.ids import new_id
from statekeep_server.service.sweeper import sweep_once, sweeping
from tests.support.world import World, command, open_world


async def save_expiring(world: World, runs: int) -> None:
    for number in range(runs):
        await world.facade.save(
            command(
                key=RunKey("default", f"run-{number}"),
                expires_at_us=world.clock.now_us() + 1_000_000,
            )
        )


async def test_it_sweeps_until_nothing_is_due() -> None:
    async with open_world() as world:
        await save_expiring(world, 5)
        world.clock.advance(2.0)
        rows = await sweep_once(world.optimized, batch_rows=2, request_result_ttl_s=60)
        assert rows >= 5
        assert world.optimized.calls.count("sweep") >= 3
        assert await sweep_once(world.memory, batch_rows=2, request_result_ttl_s=60) == 0


async def test_request_results_outlive_their_snapshots_for_the_stated_time() -> None:
    async with open_world() as world:
        await world.facade.save(command(request_id="r"))
        world.clock.advance(60.0)
        assert await sweep_once(world.memory, batch_rows=9, request_result_ttl_s=61) == 0
        world.clock.advance(60.0)  # they go by the minute
        assert await sweep_once(world.memory, batch_rows=9, request_result_ttl_s=59) == 1


async def test_a_failed_sweep_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        await save_expiring(world, 1)
        world.clock.advance(2.0)
        world.optimized.faults["sweep"] = [StorageUnavailable("LOCKED")]
        caplog.set_level(logging.INFO, logger="statekeep.sweeper")
        async with sweeping(
            world.optimized, interval_s=0.0, batch_rows=10, request_result_ttl_s=60
        ):
            async with asyncio.timeout(10):
                while world.optimized.calls.count("sweep") < 4:
                    await asyncio.sleep(0)
        calls = len(world.optimized.calls)
        await asyncio.sleep(0.01)
        assert len(world.optimized.calls) == calls, "leaving the context ends the sweeping"
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "Sweep failed: reason=STORAGE_UNAVAILABLE"
    assert any(message.startswith("Swept rows=") for message in messages)


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert ids == sorted(ids)


def test_the_system_clock_tells_both_times() -> None:
    clock = SystemClock()
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert clock.now_us() > 1_700_000_000_000_000
