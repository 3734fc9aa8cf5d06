"""The replay, against a server that keeps its word and against servers that do not."""

from dataclasses import replace
from typing import Any

import pytest

from statekeep import (
    DecisionReason,
    LoadedState,
    NotFound,
    SaveOutcome,
    SaveResult,
    ServingPath,
    Unavailable,
)
from statekeep_server.bench.record import record
from statekeep_server.bench.replay import CannotJudge, Replay, replay_stream
from statekeep_server.bench.streams import StreamName, count_saves
from tests.support.keepers import FakeKeeper

RECORDED = tuple(record(runs=3, steps=20, seed=1))


async def replayed(keeper: FakeKeeper, name: StreamName = StreamName.AROUND) -> Replay:
    return await replay_stream(keeper, name, RECORDED, prefix="p", concurrency=2)


@pytest.mark.parametrize("path", list(ServingPath))
@pytest.mark.parametrize("name", list(StreamName))
async def test_an_honest_server_passes(path: ServingPath, name: StreamName) -> None:
    keeper = FakeKeeper(path=path)
    told: list[int] = []
    replay = await replay_stream(
        keeper, name, RECORDED, prefix="p", concurrency=2, on_save=lambda: told.append(1)
    )
    assert (replay.differences, replay.lost_runs) == ((), ())
    assert (replay.path, replay.stream) == (str(path), name)
    saves = sum(count_saves(name, each) for each in RECORDED)
    figures = replay.figures
    assert (figures.saves, len(told)) == (saves, saves)
    assert figures.persisted + figures.skipped == saves
    assert figures.rows_written == 4 * figures.persisted  # the warm-up is not counted
    assert figures.statements == 6 * figures.persisted + figures.skipped
    skips = path is ServingPath.OPTIMIZED and name is StreamName.AROUND
    assert figures.skipped == (sum(19 for _ in RECORDED) if skips else 0)
    assert figures.skipped_by_reason == ({"UNCHANGED": 57} if skips else {})


async def test_every_save_has_a_request_id_of_its_own_and_every_run_is_told() -> None:
    keeper = FakeKeeper()
    replay = await replayed(keeper)
    assert len(set(keeper.requests)) == len(keeper.requests)
    assert set(replay.run_ids) == set(keeper.runs)
    assert all(run_id.startswith("p-around-") for run_id in replay.run_ids)


class Forgetful(FakeKeeper):
    """Skips what it may not: every automatic save after the fifth of a run."""

    async def save(self, run_id: str, state: bytes, **options: Any) -> SaveResult:
        kept = self.runs.get(run_id, [])
        if len(kept) >= 5 and options["checkpoint_type"] == "AUTO":
            answer = self._answer(
                SaveOutcome.SKIPPED, DecisionReason.UNCHANGED, kept[-1], options["request_id"]
            )
            self.skipped += 1
            return answer
        return await super().save(run_id, state, **options)


async def test_a_server_that_skips_a_change_is_found_out() -> None:
    replay = await replayed(Forgetful())
    assert replay.differences
    assert "SKIPPED (UNCHANGED), but it had to be PERSISTED" in replay.differences[0].problem
    assert replay.figures.oracle_differences == len(replay.differences)
    assert len(replay.lost_runs) == replay.figures.lost == 3


class Inventive(FakeKeeper):
    """Answers a skip with an id that it made up."""

    async def save(self, run_id: str, state: bytes, **options: Any) -> SaveResult:
        answer = await super().save(run_id, state, **options)
        return replace(answer, snapshot_id="made up") if answer.skipped else answer


async def test_a_server_that_invents_an_id_is_found_out() -> None:
    replay = await replayed(Inventive())
    assert {"made up" in each.problem for each in replay.differences} == {True}
    assert replay.lost_runs == ()


class Wasteful(FakeKeeper):
    """Says that it skips and does not."""

    def _same(self, one: bytes, other: bytes) -> bool:
        return False


async def test_a_server_that_never_skips_is_found_out() -> None:
    replay = await replayed(Wasteful())
    assert "PERSISTED (CHANGED), but it had to be SKIPPED" in replay.differences[0].problem
    assert replay.lost_runs == ()


class Losing(FakeKeeper):
    """Acknowledges everything and gives back an older state of one run, and none of another."""

    async def load(self, run_id: str, *, version: int | None = None) -> LoadedState[Any]:
        if run_id.endswith("0"):
            raise NotFound("gone")
        older = len(self.runs[run_id]) - 1 if run_id.endswith("1") else None
        return await super().load(run_id, version=older)


async def test_lost_states_are_counted() -> None:
    replay = await replayed(Losing())
    assert replay.differences == ()
    assert replay.lost_runs == ("p-around-00000", "p-around-00001")
    assert replay.figures.lost == 2


class Failing(FakeKeeper):
    """Breaks down after a while."""

    async def save(self, run_id: str, state: bytes, **options: Any) -> SaveResult:
        if len(self.requests) > 30:
            raise Unavailable("the database is gone")
        return await super().save(run_id, state, **options)


async def test_a_failure_ends_the_replay_with_its_reason() -> None:
    with pytest.raises(Unavailable, match="the database is gone"):
        await replayed(Failing())


async def test_rules_that_the_oracle_does_not_know_are_refused() -> None:
    with pytest.raises(CannotJudge, match="/plan/seen_at"):
        await replayed(FakeKeeper(ignored=("last_updated", "/plan/seen_at")))
