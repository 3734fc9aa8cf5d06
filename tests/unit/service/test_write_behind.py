"""Write-behind: what is answered from memory, when it is written, and what becomes of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from statekeep_server.domain.errors import (
    InvalidField,
    RequestIdReused,
)
from statekeep_server.domain.model import ByVersion, Newest, Outcome, Path, Reason, RunKey
from statekeep_server.flags import Flags
from statekeep_server.service import write_buffer
from statekeep_server.service.answers import SaveAck
from tests.support.late_saves import (
    another_server,
    counts,
    later,
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


async def test_a_save_that_may_be_late_is_answered_before_it_is_written(world: World) -> None:
    ack = await later(world, 1)
    assert (ack.result.outcome, ack.result.reason) == (Outcome.BUFFERED, Reason.WRITE_BEHIND)
    assert (ack.result.snapshot_id, ack.result.version, ack.path) == ("", 0, Path.OPTIMIZED)
    assert ack.result.changed_fields == ("step",)
    assert (await stored(world))[0] == 1
    assert counts(world).pending == 1
    await write(world)
    assert await stored(world) == (2, command({"step": 1}).state)
    assert counts(world).persisted == 1
    assert counts(world).oldest_age_s == 0


async def test_what_is_not_due_waits(world: World) -> None:
    await later(world, 1)
    world.clock.advance(0.4)
    await world.facade.write_behind.write_due()
    assert counts(world).pending == 1
    assert counts(world).oldest_age_s == pytest.approx(0.4)
    world.clock.advance(0.2)
    await later(world, 2)  # a newer state does not make the wait longer
    await world.facade.write_behind.write_due()
    assert (counts(world).persisted, counts(world).coalesced) == (1, 1)


async def test_the_newest_of_a_run_is_written_and_the_others_never(world: World) -> None:
    for step in range(1, 6):
        ack = await later(world, step)
        assert ack.result.outcome is Outcome.BUFFERED
    await write(world)
    assert await stored(world) == (2, command({"step": 5}).state)
    assert (counts(world).buffered, counts(world).persisted, counts(world).coalesced) == (5, 1, 4)


async def test_runs_are_held_beside_each_other(world: World) -> None:
    await world.facade.save(command({"step": 0}, key=OTHER))
    await later(world, 1)
    await later(world, 2, key=OTHER)
    assert counts(world).pending == 2
    await write(world)
    assert (await stored(world))[0] == (await stored(world, OTHER))[0] == 2


async def test_an_unchanged_state_is_skipped_at_once(world: World) -> None:
    ack = await later(world, 0)
    assert (ack.result.outcome, ack.result.version) == (Outcome.SKIPPED, 1)
    assert counts(world).buffered == 0
    assert world.facade.statistics().paths[1].skipped == 1


async def test_a_state_that_came_back_is_skipped_when_it_is_written(world: World) -> None:
    await later(world, 1)
    ack = await later(world, 0)
    assert ack.result.changed_fields == ()
    await write(world)
    assert (await stored(world))[0] == 1
    assert (counts(world).skipped, counts(world).coalesced) == (1, 1)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("checkpoint_type", {"checkpoint_type": "MANUAL"}),
        ("checkpoint_type", {"checkpoint_type": "CRITICAL"}),
        ("checkpoint_type", {"checkpoint_type": "UNKNOWN_99"}),
        ("is_recovery_point", {"is_recovery_point": True}),
        ("expected_version", {"expected_version": 1}),
        ("expected_version", {"expected_version": 0}),
        ("writer_sequence", {"writer_sequence": 7}),
    ],
)
async def test_what_must_not_be_late_is_refused(
    world: World, field: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidField) as caught:
        await later(world, 1, **options)
    assert caught.value.field == field
    (answer,) = await world.facade.save_many([command({}, write_behind=True, **options)])
    assert isinstance(answer, InvalidField)
    assert counts(world).buffered == 0


async def test_the_first_state_of_a_run_is_durable(world: World) -> None:
    first = await later(world, 1, key=OTHER)
    assert first.result.reason is Reason.FIRST_SAVE
    await world.facade.delete_run(OTHER)
    again = await later(world, 1, key=OTHER)
    assert again.result.reason is Reason.HEAD_GONE
    assert counts(world).declined == {"FIRST_SAVE": 2}


async def test_standard_writes_every_state_at_once(world: World) -> None:
    await later(world, 1)
    world.flags = Flags(enable_optimized_persistence=False)
    ack = await later(world, 2)
    assert (ack.path, ack.result.version) == (Path.STANDARD, 3)
    assert counts(world).declined == {"STANDARD_PATH": 1}
    assert (await world.memory.load(RUN, ByVersion(2))).snapshot.state == b'{"step": 1}'


async def test_a_save_that_expired_already_is_refused_and_not_held(world: World) -> None:
    with pytest.raises(InvalidField) as caught:
        await later(world, 1, expires_at_us=1)
    assert caught.value.field == "expires_at"
    assert counts(world).buffered == 0


@pytest.mark.parametrize("limits", [{"max_runs": 1}, {"max_bytes": 20}, {"max_runs": 0}])
async def test_beyond_a_bound_saves_are_durable(limits: dict[str, int]) -> None:
    options: dict[str, Any] = {f"write_behind_{name}": value for name, value in limits.items()}
    async with open_world(**options) as world:
        for key in (RUN, OTHER):
            await world.facade.save(command({"step": 0}, key=key))
        outcomes = [(await later(world, 1, key=key)).result.outcome for key in (RUN, OTHER)]
        held = 0 if limits.get("max_runs") == 0 else 1
        assert outcomes.count(Outcome.PERSISTED) == counts(world).declined["FULL"] == 2 - held
        assert counts(world).pending == held
        for name, value in limits.items():
            assert getattr(counts(world), name) == value


async def test_a_larger_state_that_has_no_room_is_durable_and_comes_after() -> None:
    async with open_world(write_behind_max_bytes=20) as world:
        await world.facade.save(command({"step": 0}))
        await later(world, 1)
        ack = await world.facade.save(command({"step": "x" * 50}, write_behind=True))
        assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 3)
        assert (counts(world).persisted, counts(world).declined) == (1, {"FULL": 1})


async def test_room_that_went_meanwhile_is_not_used_twice() -> None:
    async with open_world(write_behind_max_runs=1) as world:
        for key in (RUN, OTHER):
            await world.facade.save(command({"step": 0}, key=key))
        acks = await asyncio.gather(later(world, 1), later(world, 1, key=OTHER))
        outcomes = [ack.result.outcome for ack in acks]
        assert sorted(outcomes) == [Outcome.BUFFERED, Outcome.PERSISTED]
        assert counts(world).pending == 1


async def test_a_durable_save_comes_after_what_is_held(world: World) -> None:
    await later(world, 1)
    ack = await world.facade.save(command({"step": 2}))
    assert ack.result.version == 3
    assert (await world.memory.load(RUN, ByVersion(2))).snapshot.state == b'{"step": 1}'
    assert counts(world).persisted == 1


async def test_a_durable_save_of_the_held_state_is_skipped_after_it(world: World) -> None:
    await later(world, 1)
    ack = await world.facade.save(command({"step": 1}))
    assert (ack.result.outcome, ack.result.version) == (Outcome.SKIPPED, 2)


async def test_a_batch_is_durable_and_comes_after_what_is_held(world: World) -> None:
    await later(world, 1)
    answers = await world.facade.save_many(
        [
            command({"step": 2}, write_behind=True),
            command({"step": 3}),
            command({"step": 0}, key=OTHER),
        ]
    )
    assert [answer.result.version for answer in answers if isinstance(answer, SaveAck)] == [3, 4, 1]
    assert counts(world).persisted == 1
    assert counts(world).declined == {}


async def test_a_load_sees_what_is_held(world: World) -> None:
    await later(world, 1)
    loaded = await world.facade.load(RUN, Newest())
    assert (loaded.snapshot.version, loaded.snapshot.state) == (2, b'{"step": 1}')


async def test_a_list_sees_what_is_held(world: World) -> None:
    await later(world, 1)
    page = await world.facade.list_snapshots(RUN, limit=10)
    assert [snapshot.version for snapshot in page.snapshots] == [2, 1]


async def test_a_deletion_takes_what_is_held_along(world: World) -> None:
    await later(world, 1)
    assert await world.facade.delete_run(RUN) == 2
    await write(world)
    assert (counts(world).persisted, counts(world).pending) == (1, 0)
    assert (await world.facade.list_snapshots(RUN, limit=10)).snapshots == ()


async def test_what_another_server_wrote_is_never_written_over(world: World) -> None:
    await later(world, 1)
    async with another_server(world) as other:
        await other.facade.save(command({"step": 9}))
        await write(world)
        assert await stored(world) == (2, b'{"step": 9}')
        assert counts(world).superseded == 1
        # The next one stands on what the other server wrote.
        await later(world, 2)
        await write(world)
        assert await stored(world) == (3, b'{"step": 2}')


async def test_a_run_that_another_server_deleted_stays_deleted(world: World) -> None:
    await later(world, 1)
    async with another_server(world) as other:
        await other.facade.delete_run(RUN)
    await write(world)
    assert counts(world).superseded == 1
    assert (await world.facade.list_snapshots(RUN, limit=10)).snapshots == ()


async def test_a_retry_is_answered_again_and_written_once(world: World) -> None:
    for _ in range(2):
        await later(world, 1, request_id="a")
    again = await later(world, 1, request_id="a", attempt=2)
    assert (again.result.outcome, again.result.replayed) == (Outcome.BUFFERED, True)
    assert counts(world).buffered == 1
    await later(world, 2, request_id="b")
    late = await later(world, 1, request_id="a", attempt=3)
    assert late.result.replayed
    await write(world)
    assert await stored(world) == (2, b'{"step": 2}')
    for name, step in (("a", 1), ("b", 2)):
        assert (await later(world, step, request_id=name, attempt=2)).result.replayed
    await write(world)
    assert (await stored(world))[0] == 2


async def test_a_retry_that_insists_on_durability_gets_it(world: World) -> None:
    await later(world, 1, request_id="a")
    ack = await world.facade.save(command({"step": 1}, request_id="a", attempt=2))
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 2)
    assert ack.result.replayed


async def test_a_retry_of_a_durable_save_replaces_nothing(world: World) -> None:
    """The first attempt was written; a state that came after it must not make way for it."""
    await later(world, 5, key=OTHER, request_id="a")
    await later(world, 6, key=OTHER)
    ack = await later(world, 5, key=OTHER, request_id="a")
    assert (ack.result.replayed, ack.result.version) == (True, 1)
    assert await stored(world, OTHER) == (2, b'{"step": 6}')
    assert counts(world).declined == {"FIRST_SAVE": 1, "RETRIED": 1}


async def test_a_later_attempt_of_which_nothing_is_known_is_durable(world: World) -> None:
    ack = await later(world, 1, attempt=2)
    assert ack.result.outcome is Outcome.PERSISTED
    assert counts(world).declined == {"RETRIED": 1}


async def test_a_request_id_of_another_save_is_refused(world: World) -> None:
    await later(world, 1, request_id="a")
    with pytest.raises(RequestIdReused):
        await later(world, 2, request_id="a")
    assert counts(world).persisted == 1


async def test_only_so_many_retries_are_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_buffer, "REMEMBERED", 1)
    await later(world, 1, request_id="a")
    await later(world, 2, request_id="b")
    assert (await later(world, 2, request_id="b")).result.replayed
    assert not (await later(world, 1, request_id="a", attempt=1)).result.replayed
