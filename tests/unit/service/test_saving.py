"""What a save answers, on both paths, with nothing failing."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from statekeep_server.batching.group_commit import GroupCommit, QueueFull
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    DeadlineExceeded,
    InvalidField,
    Overloaded,
    RequestIdReused,
    RunNotFound,
    StateError,
    VersionConflict,
)
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import (
    ByVersion,
    CheckpointType,
    LoadedState,
    Newest,
    Outcome,
    Path,
    Reason,
    RunKey,
    SaveCommand,
)
from statekeep_server.flags import Flags
from statekeep_server.service import state_service
from statekeep_server.service.answers import SaveAck
from tests.support.world import RUN, World, command, open_world

A = {"step": 1, "last_updated": "t1"}
A_LATER = {"step": 1, "last_updated": "t2"}
B = {"step": 2, "last_updated": "t3"}


@pytest.fixture(params=[False, True], ids=["alone", "grouped"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with open_world(grouped=request.param) as opened:
        yield opened


def acked(answer: SaveAck | Exception) -> SaveAck:
    assert isinstance(answer, SaveAck), answer
    return answer


async def test_an_unchanged_automatic_save_is_answered_with_the_standing_snapshot(
    world: World,
) -> None:
    first = await world.facade.save(command(A))
    second = await world.facade.save(command(A_LATER))
    assert (first.result.outcome, first.result.reason) == (Outcome.PERSISTED, Reason.FIRST_SAVE)
    assert (second.result.outcome, second.result.reason) == (Outcome.SKIPPED, Reason.UNCHANGED)
    assert second.result.snapshot_id == first.result.snapshot_id
    assert second.result.version == first.result.version == 1
    assert second.result.state_sha256 == first.result.state_sha256
    assert second.path is Path.OPTIMIZED


async def test_a_skip_writes_nothing(world: World) -> None:
    await world.facade.save(command(A))
    before = world.memory.statistics().rows_written
    await world.facade.save(command(A_LATER))
    assert world.memory.statistics().rows_written == before
    assert world.optimized.calls.count("append_many") == 1


async def test_a_b_a_stores_three(world: World) -> None:
    versions = [(await world.facade.save(command(state))).result.version for state in (A, B, A)]
    assert versions == [1, 2, 3]


@pytest.mark.parametrize(
    "kind", [kind for kind in CheckpointType if kind not in {"AUTO", "INTERMEDIATE"}]
)
async def test_other_types_are_persisted_though_nothing_changed(world: World, kind: str) -> None:
    await world.facade.save(command(A))
    ack = await world.facade.save(command(A, checkpoint_type=kind))
    assert (ack.result.outcome, ack.result.reason) == (Outcome.PERSISTED, Reason.CHECKPOINT_TYPE)


async def test_recovery_points_are_persisted_though_nothing_changed(world: World) -> None:
    await world.facade.save(command(A))
    ack = await world.facade.save(command(A, is_recovery_point=True))
    assert (ack.result.outcome, ack.result.reason) == (Outcome.PERSISTED, Reason.RECOVERY_POINT)


async def test_unknown_types_are_persisted_and_counted(world: World) -> None:
    for _ in range(2):
        ack = await world.facade.save(command(A, checkpoint_type="UNKNOWN_99"))
        assert ack.result.outcome is Outcome.PERSISTED
        assert ack.fallback_cause is None
    assert world.facade.statistics().unknown_checkpoint_types == 2


async def test_the_standard_path_persists_every_save(world: World) -> None:
    world.flags = Flags(enable_optimized_persistence=False)
    for version in (1, 2, 3):
        ack = await world.facade.save(command(A))
        assert ack.path is Path.STANDARD
        assert ack.result.version == version


async def test_a_cache_that_is_wrong_never_answers(world: World) -> None:
    """Another server moved the head: this one remembers A, the head is B."""
    await world.facade.save(command(A))
    world.flags = Flags(enable_optimized_persistence=False)
    await world.facade.save(command(B))  # standard saves leave the cache alone
    world.flags = Flags(enable_optimized_persistence=True)
    ack = await world.facade.save(command(A))
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 3)
    assert world.facade.statistics().routes_wrong == 1


async def test_a_cache_that_says_changed_does_not_make_it_so(world: World) -> None:
    await world.facade.save(command(A))
    world.flags = Flags(enable_optimized_persistence=False)
    await world.facade.save(command(B))
    world.flags = Flags(enable_optimized_persistence=True)
    ack = await world.facade.save(command(B))  # remembered A: straight to the lock
    assert (ack.result.outcome, ack.result.version) == (Outcome.SKIPPED, 2)


async def test_the_route_is_counted_as_right_or_wrong(world: World) -> None:
    await world.facade.save(command(A))
    await world.facade.save(command(A))
    await world.facade.save(command(B))
    statistics = world.facade.statistics()
    assert (statistics.routes_right, statistics.routes_wrong) == (2, 0)


async def test_a_retry_gets_the_first_answer(world: World) -> None:
    first = await world.facade.save(command(A, request_id="r"))
    for attempt in (1, 2):
        again = await world.facade.save(command(A, request_id="r", attempt=attempt))
        assert again.result.replayed
        assert again.result.outcome is Outcome.PERSISTED
        assert again.result.version == first.result.version


async def test_a_retry_after_another_save_gets_the_first_answer_too(world: World) -> None:
    first = await world.facade.save(command(A, request_id="r"))
    await world.facade.save(command(B))
    again = await world.facade.save(command(A, request_id="r"))
    assert again.result.version == first.result.version
    # ... and what it remembers of the past is not mistaken for the head.
    ack = await world.facade.save(command(A))
    assert (ack.result.outcome, ack.result.version) == (Outcome.PERSISTED, 3)


@pytest.mark.parametrize("kind", ["AUTO", "MANUAL"])
async def test_a_request_id_names_one_save(world: World, kind: str) -> None:
    await world.facade.save(command(A, request_id="r", checkpoint_type=kind))
    with pytest.raises(RequestIdReused):
        await world.facade.save(command(B, request_id="r", checkpoint_type=kind))


async def test_a_stale_writer_gets_both_versions(world: World) -> None:
    await world.facade.save(command(A))
    await world.facade.save(command(B))
    with pytest.raises(VersionConflict) as caught:
        await world.facade.save(command(A, expected_version=1))
    assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
    assert caught.value.metadata["request_id"]


async def test_max_skips_bounds_the_drift() -> None:
    async with open_world(max_skips=2) as world:
        outcomes = [(await world.facade.save(command(A))).result.reason for _ in range(5)]
    assert outcomes == [
        Reason.FIRST_SAVE,
        Reason.UNCHANGED,
        Reason.UNCHANGED,
        Reason.MAX_SKIPS,
        Reason.UNCHANGED,
    ]


async def test_max_skips_bounds_a_batch_too() -> None:
    async with open_world(max_skips=2) as world:
        await world.facade.save(command(A))
        answers = await world.facade.save_many([command(A)] * 3)
    reasons = [acked(answer).result.reason for answer in answers]
    assert reasons == [Reason.UNCHANGED, Reason.UNCHANGED, Reason.MAX_SKIPS]


async def test_max_skip_age_bounds_the_drift(world: World) -> None:
    await world.facade.save(command(A))
    world.clock.advance(299.0)
    assert (await world.facade.save(command(A))).result.reason is Reason.UNCHANGED
    world.clock.advance(1.0)
    assert (await world.facade.save(command(A))).result.reason is Reason.MAX_SKIP_AGE


async def test_nothing_is_skipped_onto_a_deleted_run(world: World) -> None:
    await world.facade.save(command(A))
    assert await world.facade.delete_run(RUN) == 1
    with pytest.raises(RunNotFound):
        await world.facade.load(RUN, Newest())
    ack = await world.facade.save(command(A))
    assert (ack.result.outcome, ack.result.reason) == (Outcome.PERSISTED, Reason.HEAD_GONE)
    assert ack.result.version == 3


async def test_concurrent_saves_of_a_run_keep_their_order(world: World) -> None:
    """A stream sends A, B, A without waiting: the last A must not be skipped against the first."""
    answers = await asyncio.gather(*(world.facade.save(command(state)) for state in (A, B, A)))
    assert [answer.result.version for answer in answers] == [1, 2, 3]


async def test_a_save_past_its_deadline_is_not_sent(world: World) -> None:
    for kind in ("AUTO", "MANUAL"):
        with pytest.raises(DeadlineExceeded):
            await world.facade.save(command(A, checkpoint_type=kind), deadline_s=0.0)
    assert world.optimized.calls == []
    assert world.standard.calls == []


async def test_too_many_saves_are_refused_and_manual_ones_keep_a_share() -> None:
    async with open_world(max_concurrent_saves=8) as world:
        turn = asyncio.Event()
        original = world.memory.append_many

        async def slow(*args: object, **kwargs: object) -> object:
            await turn.wait()
            return await original(*args, **kwargs)  # type: ignore[arg-type]  # passed on as is

        world.memory.append_many = slow  # type: ignore[method-assign,assignment]  # holds saves up
        held = [
            asyncio.create_task(world.facade.save(command(A, key=RunKey("default", f"run-{i}"))))
            for i in range(7)
        ]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await world.facade.save(command(A))
        reserved = asyncio.create_task(
            world.facade.save(command(A, checkpoint_type=CheckpointType.MANUAL))
        )
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await world.facade.save(command(A, is_recovery_point=True))
        turn.set()
        await asyncio.gather(reserved, *held)
        await world.facade.save(command(A))


async def test_a_batch_answers_each_save(world: World) -> None:
    broken = InvalidField("expires_at", "is out of range")
    answers = await world.facade.save_many(
        [command(A), command(b"{", request_id="x"), broken, command(A_LATER), command(B)]
    )
    assert acked(answers[0]).result.version == 1
    assert isinstance(answers[1], InvalidField)
    assert answers[2] is broken
    assert acked(answers[3]).result.outcome is Outcome.SKIPPED
    assert acked(answers[4]).result.version == 2


async def test_a_batch_skips_by_the_barrier_up_to_the_first_change(world: World) -> None:
    await world.facade.save(command(A))
    answers = await world.facade.save_many([command(A), command(B), command(A), command(A)])
    outcomes = [acked(answer).result.outcome for answer in answers]
    assert outcomes == [Outcome.SKIPPED, Outcome.PERSISTED, Outcome.PERSISTED, Outcome.SKIPPED]
    assert acked(answers[3]).result.version == 3


async def test_a_reused_request_id_fails_its_item_only(world: World) -> None:
    await world.facade.save(command(A, request_id="r"))
    answers = await world.facade.save_many([command(B, request_id="r"), command(B)])
    assert isinstance(answers[0], RequestIdReused)
    assert acked(answers[1]).result.version == 2
    assert world.facade.statistics().paths[1].failures == {"REQUEST_ID_REUSED": 1}


@pytest.mark.parametrize("optimized", [False, True])
async def test_an_atomic_batch_is_all_or_nothing(world: World, optimized: bool) -> None:
    world.flags = Flags(enable_optimized_persistence=optimized)
    other = RunKey("default", "other")
    with pytest.raises(AtomicBatchFailed) as caught:
        await world.facade.save_many(
            [command(A), command(A, key=other, expected_version=7)], atomic=True
        )
    assert caught.value.index == 1
    assert isinstance(caught.value.error, VersionConflict)
    for key in (RUN, other):
        with pytest.raises(RunNotFound):
            await world.facade.load(key, Newest())
    answers = await world.facade.save_many([command(A), command(A, key=other)], atomic=True)
    assert [acked(answer).result.version for answer in answers] == [1, 1]


async def test_an_atomic_batch_fails_for_an_unreadable_or_reused_item(world: World) -> None:
    await world.facade.save(command(A, request_id="r"))
    broken = InvalidField("expires_at", "is out of range")
    batches: list[list[SaveCommand | StateError]] = [
        [command(B), command(b"{")],
        [command(A), broken],
        [command(A), command(B, request_id="r")],
    ]
    for items in batches:
        with pytest.raises(AtomicBatchFailed) as caught:
            await world.facade.save_many(items, atomic=True)
        assert caught.value.index == 1
    assert (await world.facade.load(RUN, Newest())).head_version == 1


async def test_an_empty_batch_is_empty(world: World) -> None:
    assert await world.facade.save_many([]) == []


async def test_the_caller_cannot_change_what_was_saved(world: World) -> None:
    body = bytearray(b'{"step":1}')
    ack = await world.facade.save(command(bytes(body)))
    body[8:9] = b"9"
    loaded = await world.facade.load(RUN, ByVersion(ack.result.version))
    assert loaded.snapshot.state == b'{"step":1}'


async def test_lists_and_statistics(world: World) -> None:
    await world.facade.save(command(A, thread_id="t"))
    await world.facade.save(command(A, thread_id="t"))
    await world.facade.load(RUN, Newest())
    page = await world.facade.list_snapshots(RUN, limit=10)
    assert [snapshot.version for snapshot in page.snapshots] == [1]
    runs = await world.facade.list_runs("default", limit=10, thread_id="t")
    assert [run.key for run in runs.runs] == [RUN]
    await world.facade.check()
    statistics = world.facade.statistics()
    optimized = statistics.paths[1]
    assert (optimized.saves, optimized.persisted, optimized.skipped, optimized.loads) == (
        2,
        1,
        1,
        1,
    )
    assert optimized.decisions == {"FIRST_SAVE": 1, "UNCHANGED": 1}
    assert statistics.cache is not None
    assert statistics.cache.entries == 1
    assert not statistics.circuit_open


async def test_a_run_is_deleted_on_the_standard_path_too(world: World) -> None:
    world.flags = Flags(enable_optimized_persistence=False)
    await world.facade.save(command(A))
    assert await world.facade.delete_run(RUN) == 1
    assert await world.facade.delete_run(RUN) == 0


async def test_loads_of_newest_states_share_a_statement() -> None:
    async with open_world() as world:
        await world.facade.save(command(A))
        world.optimized.calls.clear()
        loads = [world.facade.load(RUN, Newest()) for _ in range(5)]
        missing = world.facade.load(RunKey("default", "nobody"), Newest())
        *loaded, error = await asyncio.gather(*loads, missing, return_exceptions=True)
        assert all(
            isinstance(each, LoadedState) and each.snapshot.state == command(A).state
            for each in loaded
        )
        assert isinstance(error, RunNotFound)
        assert world.optimized.calls == ["load_newest"]
        await world.facade.load(RUN, ByVersion(1))
        assert world.optimized.calls == ["load_newest", "load"]


async def test_without_groups_every_load_reads_the_state() -> None:
    async with open_world(grouped=False) as world:
        await world.facade.save(command(A))
        world.optimized.calls.clear()
        await world.facade.load(RUN, Newest())
        assert world.optimized.calls == ["load"]


async def test_one_check_at_a_time_asks_the_database(world: World) -> None:
    """Callers that give up waiting, and ask again, must not take a connection each."""
    may_answer = asyncio.Event()

    async def hang() -> None:
        await may_answer.wait()

    world.memory.check = hang  # type: ignore[method-assign]  # a database that does not answer
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await world.facade.check()
    assert world.optimized.calls.count("check") == 1
    may_answer.set()
    await world.facade.check()
    await world.facade.check()
    assert world.optimized.calls.count("check") == 2


async def test_every_save_of_a_batch_that_is_not_let_in_counts_as_refused() -> None:
    async with open_world(max_concurrent_saves=8) as world:
        with pytest.raises(Overloaded):
            await world.facade.save_many([command(A, key=RunKey("t", str(n))) for n in range(8)])
        paths = world.facade.statistics().paths
        assert sum(path.failures.get("OVERLOADED", 0) for path in paths) == 8


async def test_a_full_commit_queue_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, item: object) -> None:
        raise QueueFull(7)

    monkeypatch.setattr(GroupCommit, "submit", full)
    async with open_world() as world:
        with pytest.raises(Overloaded) as caught:
            await world.facade.save(command(A, checkpoint_type=CheckpointType.MANUAL))
        assert caught.value.metadata["limit"] == "7"
        assert world.standard.calls == [], "overload is no reason to fall back"


async def test_a_state_that_is_prepared_in_a_thread_is_saved_like_any_other(world: World) -> None:
    large = {"step": 1, "text": "x" * 300_000}
    ack = await world.facade.save(command(large))
    loaded = await world.facade.load(RUN, ByVersion(ack.result.version))
    assert loaded.snapshot.state == command(large).state


async def test_only_a_state_that_came_in_chunks_may_be_larger_than_a_message(world: World) -> None:
    over = command(json.dumps({"text": "x" * Limits().max_state_bytes}).encode())
    with pytest.raises(InvalidField) as caught:
        await world.facade.save(over)
    assert caught.value.metadata["limit"] == str(Limits().max_state_bytes)
    ack = await world.facade.save(over, large=True)
    loaded = await world.facade.load(RUN, ByVersion(ack.result.version))
    assert loaded.snapshot.state == over.state


async def test_skips_in_a_row_are_remembered_of_so_many_runs_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_service, "SKIP_COUNTS", 1)
    async with open_world(max_skips=1) as world:
        other = RunKey("default", "run-2")
        for key in (RUN, other):
            for _ in range(2):
                await world.facade.save(command(A, key=key))
        # Forgotten with the skip of the other run; otherwise it would be persisted.
        ack = await world.facade.save(command(A))
        assert ack.result.outcome is Outcome.SKIPPED
