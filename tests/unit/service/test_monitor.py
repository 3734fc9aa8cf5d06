"""Monitoring tells of every save, and nothing that becomes of it reaches one."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    InvalidField,
    Overloaded,
    StorageUnavailable,
    VersionConflict,
)
from statekeep_server.domain.model import Outcome, RunKey, SaveResult
from statekeep_server.flags import Flags
from statekeep_server.service.ports import Append
from statekeep_server.telemetry.event_queue import MAX_ITEMS
from statekeep_server.telemetry.save_events import SaveEvent
from tests.support.world import RUN, World, command, open_world

A = {"step": 1}
B = {"step": 2, "plan": "b"}
ON_STANDARD = Flags()


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "statekeep")


def told(world: World) -> list[tuple[str, int | None, str, str]]:
    """What monitoring said, without the times."""
    return [(each.operation, *each[4:]) for each in world.events]


@pytest.mark.parametrize("grouped", [False, True])
async def test_each_save_is_told_with_its_operation_and_its_changes(grouped: bool) -> None:
    async with open_world(grouped=grouped) as world:
        await world.facade.save(command(A))
        await world.facade.save(command(A))
        await world.facade.save(command(B))
        world.flags = ON_STANDARD
        await world.facade.save(command(B))
    assert told(world) == [
        ("optimized_save", 1, "", ""),
        ("skipped_save", 0, "", ""),
        ("optimized_save", 2, "", ""),
        ("standard_save", 0, "", ""),
    ]
    assert {(each.run_id, each.at_us) for each in world.events} == {
        (RUN.run_id, world.clock.now_us())
    }


async def test_a_fallback_and_failures_are_told_with_their_reason() -> None:
    async with open_world() as world:
        world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
        await world.facade.save(command(A))
        world.standard.always["append_many"] = StorageUnavailable("UNREACHABLE")
        with pytest.raises(StorageUnavailable):
            await world.facade.save(command(B))
        world.flags = ON_STANDARD
        with pytest.raises(StorageUnavailable):
            await world.facade.save(command(B))
    assert told(world) == [
        ("standard_save", 1, "STORAGE_UNAVAILABLE", ""),
        ("optimized_save", None, "", "STORAGE_UNAVAILABLE"),
        ("standard_save", None, "", "STORAGE_UNAVAILABLE"),
    ]


async def test_a_refused_save_is_told_too() -> None:
    async with open_world() as world:
        with pytest.raises(InvalidField):
            await world.facade.save(command(A, key=RunKey("default", "\n")))
    assert told(world) == [("optimized_save", None, "", "INVALID_FIELD")]
    async with open_world(max_concurrent_saves=0) as world:
        with pytest.raises(Overloaded):
            await world.facade.save(command(A))
    assert told(world) == [("optimized_save", None, "", "OVERLOADED")]


async def test_the_saves_of_a_batch_are_told_one_by_one() -> None:
    async with open_world() as world:
        await world.facade.save(command(A))
        other = RunKey("default", "run-2")
        conflict = command(B, key=other, expected_version=9)
        await world.facade.save_many([command(A), command(B), conflict])
        with pytest.raises(AtomicBatchFailed):
            await world.facade.save_many([command(A), conflict], atomic=True)
    assert told(world)[1:] == [
        ("skipped_save", 0, "", ""),
        ("optimized_save", 2, "", ""),
        *[("optimized_save", None, "", "VERSION_CONFLICT")] * 3,
    ]


async def test_a_save_in_a_callers_session_is_told() -> None:
    async with open_world() as world:
        memory = world.memory

        async def append(session: object, append: Append) -> SaveResult:
            (answer,) = await memory.append_many([append])
            if isinstance(answer, Exception):
                raise answer
            return answer

        memory.append_in_session = append  # type: ignore[method-assign]  # memory has no sessions
        await world.facade.save_in_session(command(A), object())
        with pytest.raises(VersionConflict):
            await world.facade.save_in_session(command(B, expected_version=9), object())
    assert told(world) == [
        ("optimized_save", 1, "", ""),
        ("optimized_save", None, "", "VERSION_CONFLICT"),
    ]


async def test_switched_off_nothing_is_told_and_back_on_it_is() -> None:
    async with open_world() as world:
        world.flags = replace(world.flags, monitoring=False)
        await world.facade.save(command(A))
        with pytest.raises(VersionConflict):
            await world.facade.save(command(B, expected_version=9))
        assert world.facade.statistics().monitoring.depth == 0
        world.flags = replace(world.flags, monitoring=True)
        await world.facade.save(command(A))
    assert [each.operation for each in world.events] == ["skipped_save"]


async def test_a_log_level_above_info_is_off_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "statekeep")
    async with open_world() as world:
        await world.facade.save(command(A))
    assert not world.events


async def test_saves_do_not_notice_a_writer_that_never_returns() -> None:
    release = threading.Event()
    hanging = threading.Event()

    def hang(events: Sequence[SaveEvent]) -> None:
        hanging.set()
        release.wait()

    async with open_world(tell=hang) as world:
        await world.facade.save(command(A))
        await asyncio.to_thread(hanging.wait)
        saves = MAX_ITEMS + 500
        acks = await asyncio.gather(
            *(
                world.facade.save(command(A, key=RunKey("default", f"run-{number}")))
                for number in range(500)
            )
        )
        for _ in range(2):
            acks += await asyncio.gather(*(world.facade.save(command(A)) for _ in range(500)))
        assert len(acks) == saves
        assert {ack.result.outcome for ack in acks} == {Outcome.PERSISTED, Outcome.SKIPPED}
        found = world.facade.statistics().monitoring
        assert (found.depth, found.written, found.dropped) == (MAX_ITEMS, 0, 501)
        release.set()
