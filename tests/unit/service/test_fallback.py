"""The optimized path fails at every step, and the save arrives exactly once through standard."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    CircuitOpen,
    CommitUnknown,
    DeadlineExceeded,
    Failed,
    InvalidField,
    RequestIdReused,
    RunNotFound,
    StateError,
    StorageUnavailable,
    VersionConflict,
)
from statekeep_server.domain.model import Newest, Outcome, Path, RunKey
from statekeep_server.flags import Flags
from statekeep_server.service.answers import SaveAck
from tests.support.wire import gate
from tests.support.world import RUN, World, command, open_world

A = {"step": 1}
B = {"step": 2}
SECRET = "password=hunter2"


@pytest.fixture(params=[False, True], ids=["alone", "grouped"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with open_world(grouped=request.param) as opened:
        yield opened


def break_cache_lookup(world: World) -> None:
    world.heads.always["get"] = RuntimeError(SECRET)


def break_cache_invalidation(world: World) -> None:
    world.heads.always["invalidate"] = RuntimeError(SECRET)


def break_cache_fill(world: World) -> None:
    world.heads.always["put"] = RuntimeError(SECRET)


def break_barrier(world: World) -> None:
    world.clock.advance(3_600.0)  # the cache forgets, so that the barrier is asked
    world.optimized.always["barrier"] = StorageUnavailable("POOL_TIMEOUT")


def break_append(world: World) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")


def lose_the_commit(world: World) -> None:
    world.optimized.lose_commits = 1


def lose_and_break(world: World) -> None:
    world.optimized.lose_commits = 1
    world.heads.always["get"] = RuntimeError(SECRET)


STEPS: dict[str, tuple[Callable[[World], None], str]] = {
    "cache look-up": (break_cache_lookup, "UNEXPECTED_ERROR"),
    "cache invalidation": (break_cache_invalidation, "UNEXPECTED_ERROR"),
    "cache fill": (break_cache_fill, "UNEXPECTED_ERROR"),
    "barrier": (break_barrier, "STORAGE_UNAVAILABLE"),
    "append": (break_append, "STORAGE_UNAVAILABLE"),
    "commit lost": (lose_the_commit, "COMMIT_UNKNOWN"),
    "look-up after a lost commit": (lose_and_break, "UNEXPECTED_ERROR"),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_failing_step_costs_nothing_but_the_detour(
    world: World, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    break_it, reason = STEPS[step]
    await world.facade.save(command(A))
    break_it(world)
    with caplog.at_level(logging.ERROR, logger="statekeep.facade"):
        ack = await world.facade.save(command(B))
    assert ack.path is Path.STANDARD
    assert ack.fallback_cause is not None
    assert ack.fallback_cause.reason == reason
    assert SECRET not in ack.fallback_cause.message
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 2)
    loaded = await world.facade.load(RUN, Newest())
    assert loaded.head_version == 2, "the save happened exactly once"
    (record,) = caplog.records
    assert record.getMessage() == f"Optimized persistence failed: reason={reason}"
    assert record.exc_info, "the first error is logged with its traceback"
    assert SECRET not in logging.Formatter().format(record)
    assert world.facade.statistics().paths[1].fallbacks == {reason: 1}


async def test_a_lost_commit_answers_with_the_recorded_result(world: World) -> None:
    world.optimized.lose_commits = 1
    ack = await world.facade.save(command(A))
    assert ack.result.replayed
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 1)


async def test_an_unchanged_save_that_falls_back_is_persisted(world: World) -> None:
    await world.facade.save(command(A))
    world.optimized.always["barrier"] = StorageUnavailable("POOL_TIMEOUT")
    ack = await world.facade.save(command(A))
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 2)


async def test_both_causes_reach_the_caller(world: World) -> None:
    world.optimized.always["append_many"] = RuntimeError(SECRET)
    world.standard.always["append_many"] = StorageUnavailable("READ_ONLY")
    with pytest.raises(StorageUnavailable) as caught:
        await world.facade.save(command(A, checkpoint_type="MANUAL", request_id="mine"))
    error = caught.value
    assert error.metadata["optimized_cause"] == "UNEXPECTED_ERROR"
    assert error.metadata["standard_cause"] == "STORAGE_UNAVAILABLE"
    assert error.metadata["cause"] == "READ_ONLY"
    assert error.metadata["request_id"] == "mine"
    assert "RuntimeError" in error.message
    assert "READ_ONLY" in error.message
    assert SECRET not in error.message
    assert isinstance(error.__cause__, RuntimeError)


async def test_two_unexpected_errors_are_named_without_their_text(world: World) -> None:
    world.optimized.always["append_many"] = RuntimeError(SECRET)
    world.standard.always["append_many"] = ValueError(SECRET)
    with pytest.raises(Failed) as caught:
        await world.facade.save(command(A, checkpoint_type="MANUAL"))
    assert "ValueError" in caught.value.message
    assert SECRET not in caught.value.message


async def test_an_unknown_commit_stays_unknown_when_standard_fails_too(world: World) -> None:
    world.optimized.lose_commits = 1
    world.standard.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(CommitUnknown) as caught:
        await world.facade.save(command(A, request_id="r"))
    assert caught.value.metadata["optimized_cause"] == "COMMIT_UNKNOWN"
    world.standard.always.clear()
    again = await world.facade.save(command(A, request_id="r", attempt=2))
    assert (again.result.version, again.result.replayed) == (1, True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"expected_version": 9}, VersionConflict),
        ({"request_id": "taken"}, RequestIdReused),
        ({"agent_phase": "\x00"}, InvalidField),
    ],
)
async def test_a_refused_save_does_not_fall_back(
    world: World, options: dict[str, object], error: type[StateError]
) -> None:
    await world.facade.save(command(B, request_id="taken"))
    with pytest.raises(error):
        await world.facade.save(command(A, **options))
    assert world.standard.calls == []
    assert world.facade.statistics().paths[1].fallbacks == {}


async def test_an_expired_deadline_does_not_fall_back(world: World) -> None:
    with pytest.raises(DeadlineExceeded):
        await world.facade.save(command(A), deadline_s=0.0)
    assert world.standard.calls == []


async def test_a_conflict_found_by_the_fallback_is_the_callers(world: World) -> None:
    await world.facade.save(command(A))
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(VersionConflict) as caught:
        await world.facade.save(command(B, expected_version=7))
    assert caught.value.metadata["actual_version"] == "1"
    assert caught.value.metadata["optimized_cause"] == "STORAGE_UNAVAILABLE"


async def test_after_repeated_failures_saves_go_straight_to_standard(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    for _ in range(5):
        await world.facade.save(command(A, checkpoint_type="MANUAL"))
    calls = len(world.optimized.calls)
    caplog.clear()
    ack = await world.facade.save(command(A, checkpoint_type="MANUAL"))
    assert len(world.optimized.calls) == calls
    assert ack.fallback_cause is not None
    assert ack.fallback_cause.reason == CircuitOpen.reason
    assert caplog.records[-1].exc_info is None, "no traceback per save while the path rests"
    assert world.facade.statistics().circuit_open

    world.optimized.always.clear()
    world.clock.advance(1.0)
    ack = await world.facade.save(command(A, checkpoint_type="MANUAL"))
    assert (ack.path, ack.fallback_cause) == (Path.OPTIMIZED, None)
    assert not world.facade.statistics().circuit_open


async def test_a_probe_that_was_never_sent_leaves_the_circuit_as_it_was(world: World) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    for _ in range(5):
        await world.facade.save(command(A, checkpoint_type="MANUAL"))
    world.clock.advance(1.0)
    with pytest.raises(DeadlineExceeded):
        await world.facade.save(command(A, checkpoint_type="MANUAL"), deadline_s=0.0)
    assert world.facade.statistics().circuit_open
    world.optimized.always.clear()
    ack = await world.facade.save(command(A, checkpoint_type="MANUAL"))
    assert ack.path is Path.OPTIMIZED


async def test_a_probe_whose_caller_went_lets_another_one_probe() -> None:
    async with open_world() as world:
        world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
        for _ in range(5):
            await world.facade.save(command(A, checkpoint_type="MANUAL"))
        world.optimized.always.clear()
        world.clock.advance(1.0)
        gated = gate(world)
        probe = asyncio.create_task(world.facade.save(command(A, checkpoint_type="MANUAL")))
        while not gated.waiting:
            await asyncio.sleep(0.001)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert world.facade.statistics().circuit_open
        gated.gate.set()
        ack = await world.facade.save(command(B, checkpoint_type="MANUAL"))
        assert (ack.path, ack.fallback_cause) == (Path.OPTIMIZED, None)
        assert not world.facade.statistics().circuit_open


async def test_a_failing_standard_path_has_nothing_to_fall_back_to(world: World) -> None:
    world.flags = Flags(enable_optimized_persistence=False)
    world.standard.always["append_many"] = StorageUnavailable("LOCKED")
    with pytest.raises(StorageUnavailable) as caught:
        await world.facade.save(command(A))
    assert "optimized_cause" not in caught.value.metadata
    assert world.facade.statistics().paths[0].failures == {"STORAGE_UNAVAILABLE": 1}


async def test_reads_use_the_other_pool_when_theirs_fails(world: World) -> None:
    await world.facade.save(command(A))
    for load in ("load", "load_newest"):
        world.optimized.always[load] = StorageUnavailable("POOL_TIMEOUT")
    assert (await world.facade.load(RUN, Newest())).head_version == 1
    world.standard.always["load"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(StorageUnavailable) as caught:
        await world.facade.load(RUN, Newest())
    assert caught.value.metadata["optimized_cause"] == "STORAGE_UNAVAILABLE"
    world.flags = Flags(enable_optimized_persistence=False)
    with pytest.raises(StorageUnavailable):
        await world.facade.load(RUN, Newest())


async def test_a_missing_run_is_no_reason_to_fall_back(world: World) -> None:
    with pytest.raises(RunNotFound):
        await world.facade.load(RunKey("default", "nobody"), Newest())
    assert world.standard.calls == []


# Batches


def acked(answer: SaveAck | Exception) -> SaveAck:
    assert isinstance(answer, SaveAck), answer
    return answer


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_batch_falls_back_as_a_whole(world: World, atomic: bool) -> None:
    world.optimized.lose_commits = 1
    answers = await world.facade.save_many([command(A), command(B)], atomic=atomic)
    acks = [acked(answer) for answer in answers]
    assert [ack.result.version for ack in acks] == [1, 2]
    assert all(ack.path is Path.STANDARD and ack.fallback_cause for ack in acks)
    assert (await world.facade.load(RUN, Newest())).head_version == 2


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_batch_that_fails_on_both_paths_names_both(world: World, atomic: bool) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("POOL_TIMEOUT")
    world.standard.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(StorageUnavailable) as caught:
        await world.facade.save_many([command(A), command(B)], atomic=atomic)
    assert caught.value.metadata["optimized_cause"] == "STORAGE_UNAVAILABLE"


@pytest.mark.parametrize("optimized", [False, True])
async def test_a_poisoned_item_fails_alone(world: World, optimized: bool) -> None:
    """A batch that breaks the database statement is tried item by item."""
    world.flags = Flags(enable_optimized_persistence=optimized)
    original = world.memory.append_many

    async def poisoned(appends, *, atomic=False):  # type: ignore[no-untyped-def]  # as the port's
        if any(b"poison" in append.save.command.state for append in appends):
            raise RuntimeError(SECRET)
        return await original(appends, atomic=atomic)

    world.memory.append_many = poisoned  # type: ignore[method-assign]  # a fault inside the store
    answers = await world.facade.save_many(
        [command(A), command({"text": "poison"}), command(B, key=RunKey("default", "other"))]
    )
    assert isinstance(answers[1], RuntimeError)
    assert [acked(answers[0]).result.version, acked(answers[2]).result.version] == [1, 1]


async def test_a_standard_batch_that_the_database_refuses_fails_at_once(world: World) -> None:
    world.flags = Flags(enable_optimized_persistence=False)
    world.standard.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(StorageUnavailable):
        await world.facade.save_many([command(A), command(B)])
    assert world.standard.calls == ["append_many"]


@pytest.mark.parametrize("recovers", [False, True])
async def test_an_item_that_fails_for_itself_falls_back_by_itself(
    world: World, recovers: bool
) -> None:
    original = world.optimized.append_many

    async def half(appends, **options):  # type: ignore[no-untyped-def]  # as the port's
        written = await original(appends[:1], **options)
        return [*written, *[StorageUnavailable("LOCKED") for _ in appends[1:]]]

    world.optimized.append_many = half  # type: ignore[method-assign]  # as two transactions may
    if not recovers:
        world.standard.always["append_many"] = StorageUnavailable("READ_ONLY")
    fine, locked = await world.facade.save_many(
        [command(A), command(B, key=RunKey("default", "locked"))]
    )
    assert (acked(fine).path, acked(fine).fallback_cause) == (Path.OPTIMIZED, None)
    (standard, optimized) = world.facade.statistics().paths
    assert optimized.fallbacks == {"STORAGE_UNAVAILABLE": 1}
    assert optimized.failures == {}
    if recovers:
        assert acked(locked).path is Path.STANDARD
        assert acked(locked).fallback_cause is not None
    else:
        assert isinstance(locked, StorageUnavailable)
        assert locked.metadata["optimized_cause"] == "STORAGE_UNAVAILABLE"
        assert standard.failures == {"STORAGE_UNAVAILABLE": 1}


@pytest.mark.parametrize("optimized", [False, True])
async def test_a_refused_atomic_batch_does_not_fall_back(world: World, optimized: bool) -> None:
    world.flags = Flags(enable_optimized_persistence=optimized)
    with pytest.raises(AtomicBatchFailed):
        await world.facade.save_many([command(A), command(B, expected_version=5)], atomic=True)
    calls = world.standard.calls if optimized else world.optimized.calls
    assert calls == []


async def test_an_atomic_batch_refused_by_the_fallback_is_refused(world: World) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(AtomicBatchFailed):
        await world.facade.save_many([command(A), command(B, expected_version=5)], atomic=True)


async def test_a_resting_path_takes_no_batches(world: World) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    for _ in range(5):
        await world.facade.save_many([command(A, checkpoint_type="MANUAL")])
    calls = len(world.optimized.calls)
    await world.facade.save_many([command(A, checkpoint_type="MANUAL")])
    assert len(world.optimized.calls) == calls


# Cancellation


async def test_a_cancelled_call_cancels_no_commit(world: World) -> None:
    entered, may_commit = asyncio.Event(), asyncio.Event()
    original = world.memory.append_many

    async def slow(*args, **kwargs):  # type: ignore[no-untyped-def]  # as the port's
        entered.set()
        await may_commit.wait()
        return await original(*args, **kwargs)

    world.memory.append_many = slow  # type: ignore[method-assign]  # holds the commit up
    call = asyncio.create_task(world.facade.save(command(A, request_id="r")))
    await entered.wait()
    follower = asyncio.create_task(world.facade.save(command(B)))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    may_commit.set()
    assert (await follower).result.version == 2, "the next save of the run waits for the commit"
    again = await world.facade.save(command(A, request_id="r", attempt=2))
    assert (again.result.version, again.result.replayed) == (1, True)


@pytest.mark.parametrize("fault", ["the commit fails", "its time is over"])
async def test_a_cancelled_save_that_then_fails_leaves_its_run_free(
    world: World, fault: str
) -> None:
    entered, may_commit = asyncio.Event(), asyncio.Event()
    original = world.memory.append_many

    async def slow(*args, **kwargs):  # type: ignore[no-untyped-def]  # as the port's
        entered.set()
        await may_commit.wait()
        world.memory.append_many = original  # type: ignore[method-assign]  # once is enough
        if fault == "the commit fails":
            raise StorageUnavailable("LOCKED")
        return await original(*args, **kwargs)

    world.memory.append_many = slow  # type: ignore[method-assign]  # holds the commit up
    calls = []
    if fault == "its time is over":
        other = command(A, key=RunKey("default", "another"))
        calls.append(asyncio.create_task(world.facade.save(other)))
        await entered.wait()
    call = asyncio.create_task(world.facade.save(command(A), deadline_s=1.0))
    await entered.wait()
    await asyncio.sleep(0.01)
    world.clock.advance(2.0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    may_commit.set()
    await asyncio.gather(*calls)
    async with asyncio.timeout(5):
        assert (await world.facade.save(command(B))).result.outcome is Outcome.PERSISTED
        (again,) = await world.facade.save_many([command(A)])
        assert acked(again).result.outcome is Outcome.PERSISTED
        await world.facade.delete_run(RUN)
    assert world.facade._admission.saves == 0


async def test_a_failed_write_is_not_remembered(world: World) -> None:
    """Nothing is known of a write before its commit: its own retry must not be a skip."""
    for store in (world.optimized, world.standard):
        store.always["append_many"] = StorageUnavailable("UNREACHABLE")
    with pytest.raises(StorageUnavailable):
        await world.facade.save(command(A))
    for store in (world.optimized, world.standard):
        store.always.clear()
    ack = await world.facade.save(command(A))
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 1)
    loaded = await world.facade.load(RUN, Newest())
    assert loaded.snapshot.state == command(A).state


async def test_a_save_that_the_path_does_not_take_keeps_its_place(world: World) -> None:
    break_append(world)
    for step in range(5):
        await world.facade.save(command({"step": step}))
    resting = await world.facade.begin_save(command({"step": "resting"}))
    world.flags = Flags(enable_optimized_persistence=False)
    after = await world.facade.begin_save(command({"step": "after"}))
    first, second = await asyncio.gather(resting, after)
    assert first.fallback_cause is not None
    assert first.fallback_cause.reason == CircuitOpen.reason
    assert second.fallback_cause is None
    assert first.result.version < second.result.version
