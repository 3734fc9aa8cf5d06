"""The spans of saves and loads: what they say of a decision, a fallback, a retry and a failure."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from statekeep_server.domain.errors import AtomicBatchFailed, StateError, StorageUnavailable
from statekeep_server.domain.model import CheckpointType, Newest, Path
from statekeep_server.flags import Flags
from tests.support.collector import attributes
from tests.support.tracing import traced
from tests.support.world import RUN, World, command, open_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as opened:
        yield opened


def events(span: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, attributes(event.attributes)) for event in span.events]


async def test_a_save_says_what_became_of_it(world: World) -> None:
    with traced() as spans:
        await world.facade.save(command({"step": 1}))
        await world.facade.save(command({"step": 1}))
    first, second = spans.named("statekeep.save")
    assert attributes(first.attributes)["statekeep.outcome"] == "PERSISTED"
    assert events(second) == [
        (
            "statekeep.decision",
            {"statekeep.outcome": "SKIPPED", "statekeep.reason": "UNCHANGED"},
        )
    ]
    assert not [name for name, _ in events(first) if name == "statekeep.retry"]


async def test_a_later_attempt_is_a_retry(world: World) -> None:
    with traced() as spans:
        await world.facade.save(command(attempt=3, request_id="one"))
    (save,) = spans.named("statekeep.save")
    assert events(save)[0] == ("statekeep.retry", {"statekeep.attempt": 3})


async def test_a_fallback_is_an_event_with_its_first_error(world: World) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with traced() as spans:
        ack = await world.facade.save(command(checkpoint_type=CheckpointType.MANUAL))
    assert ack.path is Path.STANDARD
    (save,) = spans.named("statekeep.save")
    assert events(save)[0] == (
        "statekeep.fallback",
        {"statekeep.reason": "STORAGE_UNAVAILABLE"},
    )
    assert attributes(save.attributes)["statekeep.path"] == "STANDARD"
    (store,) = spans.named("statekeep.store")
    assert attributes(store.attributes)["error.type"] == "STORAGE_UNAVAILABLE"
    assert store.status.code == 2


async def test_only_what_the_system_could_not_do_is_an_error(world: World) -> None:
    with traced() as spans, pytest.raises(StateError):
        await world.facade.save(command(expected_version=9))
    (refused,) = spans.named("statekeep.save")
    assert events(refused) == [("statekeep.failure", {"statekeep.reason": "VERSION_CONFLICT"})]
    assert refused.status.code == 0
    world.flags = Flags()
    world.standard.always["append_many"] = StorageUnavailable("DISK_FULL")
    with traced() as spans, pytest.raises(StateError):
        await world.facade.save(command())
    (failed,) = spans.named("statekeep.save")
    assert failed.status.code == 2


async def test_a_batch_has_one_span(world: World) -> None:
    with traced() as spans:
        await world.facade.save_many([command({"step": n}) for n in range(3)])
    (batch,) = spans.named("statekeep.save_many")
    assert attributes(batch.attributes) == {"statekeep.saves": 3}
    with traced() as spans, pytest.raises(AtomicBatchFailed):
        await world.facade.save_many([command(expected_version=9)], atomic=True)
    (batch,) = spans.named("statekeep.save_many")
    assert events(batch)[0][0] == "statekeep.failure"


async def test_a_load_says_what_was_found(world: World) -> None:
    await world.facade.save(command({"step": 1}))
    with traced() as spans:
        await world.facade.load(RUN, Newest())
    (load,) = spans.named("statekeep.load")
    assert attributes(load.attributes)["statekeep.version"] == 1
    await world.facade.delete_run(RUN)
    with traced() as spans, pytest.raises(StateError):
        await world.facade.load(RUN, Newest())
    (load,) = spans.named("statekeep.load")
    assert events(load) == [("statekeep.failure", {"statekeep.reason": "RUN_NOT_FOUND"})]


async def test_a_wait_that_is_given_up_ends_too(world: World) -> None:
    with traced() as spans:
        saving = asyncio.create_task(world.facade.save(command(checkpoint_type="MANUAL")))
        await asyncio.sleep(0)
        saving.cancel()
        await asyncio.wait([saving])
        await world.facade.save(command({"step": 2}, checkpoint_type="MANUAL"))
    stores = spans.named("statekeep.store")
    assert {
        link.span_id for commit in spans.named("statekeep.commit") for link in commit.links
    } == {store.span_id for store in stores}
