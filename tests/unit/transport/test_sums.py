"""The counts of several workers are added up, field by field."""

from typing import Any

import pytest

from statekeep.v1 import admin_service_pb2 as pb
from statekeep.v1 import agent_state_pb2
from statekeep_server.transport.sums import FIRST, HIGHEST, MEANS, PER_PATH, summed

STANDARD = agent_state_pb2.SERVING_PATH_STANDARD
OPTIMIZED = agent_state_pb2.SERVING_PATH_OPTIMIZED

PARTS = (
    pb.GetStatsResponse,
    pb.PathStats,
    pb.CacheStats,
    pb.PoolStats,
    pb.ArmStats,
    pb.Durations,
    pb.ShadowStats,
    pb.QueueStats,
    pb.WriteBehindStats,
)
SUMS_OF_FRACTIONS = {"sum_s", "sum_squares"}
COUNTS = [
    (message, field.name)
    for message in PARTS
    for field in message.DESCRIPTOR.fields
    if field.message_type is None and field.name not in {"silent_workers", *HIGHEST, *MEANS}
]


def within(part: Any, name: str, value: Any) -> pb.GetStatsResponse:
    """An answer that holds one value in one of its parts."""
    answer = pb.GetStatsResponse()
    for moment in FIRST:
        getattr(answer, moment).SetInParent()
    place: Any = answer
    if part is pb.PathStats:
        place = answer.paths.add(path=OPTIMIZED)
    elif part is pb.CacheStats:
        place = answer.cache
    elif part is pb.PoolStats:
        place = answer.pools.add(path=OPTIMIZED)
    elif part is pb.ArmStats:
        place = answer.arms.add(path=OPTIMIZED)
    elif part is pb.Durations:
        place = answer.arms.add(path=OPTIMIZED).skipped_durations
    elif part is pb.ShadowStats:
        place = answer.shadow
    elif part is pb.QueueStats:
        place = answer.monitoring
    elif part is pb.WriteBehindStats:
        place = answer.write_behind
    setattr(place, name, value)
    return answer


@pytest.mark.parametrize(
    ("part", "name"), COUNTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_every_number_is_added_up(part: Any, name: str) -> None:
    """A new field that is no count has to be named in `sums`."""
    if part.DESCRIPTOR.fields_by_name[name].type == 8:
        on, off = within(part, name, value=True), within(part, name, value=False)
        assert summed([off, on], silent=0) == on
        return
    values = [within(part, name, value) for value in (2, 3)]
    assert summed(values, silent=0) == within(part, name, 5)


def test_every_fraction_is_named() -> None:
    """Fractions are never simply added."""
    fractions = {
        field.name
        for message in PARTS
        for field in message.DESCRIPTOR.fields
        if field.type in {1, 2}
    }
    assert fractions <= HIGHEST | MEANS.keys() | SUMS_OF_FRACTIONS
    assert {
        field.name
        for field in pb.GetStatsResponse.DESCRIPTOR.fields
        if field.message_type is not None and "path" in field.message_type.fields_by_name
    } == PER_PATH


def test_paths_stay_apart_and_words_are_counted() -> None:
    one = pb.GetStatsResponse(
        paths=[
            pb.PathStats(path=STANDARD, saves=1, decisions={"FIRST": 1}),
            pb.PathStats(path=OPTIMIZED, saves=10, failures={"OVERLOADED": 2}),
        ]
    )
    other = pb.GetStatsResponse(
        paths=[
            pb.PathStats(path=STANDARD, saves=2, decisions={"FIRST": 2, "CHANGED": 5}),
            pb.PathStats(path=OPTIMIZED, saves=20, failures={"OVERLOADED": 3}),
        ]
    )
    standard, optimized = summed([one, other], silent=0).paths
    assert (standard.path, standard.saves) == (STANDARD, 3)
    assert dict(standard.decisions) == {"FIRST": 3, "CHANGED": 5}
    assert (optimized.path, optimized.saves) == (OPTIMIZED, 30)
    assert dict(optimized.failures) == {"OVERLOADED": 5}


def test_means_are_weighted_and_equal_things_stay() -> None:
    def answer(persisted: int, mean_s: float) -> pb.GetStatsResponse:
        path = pb.PathStats(path=OPTIMIZED, persisted=persisted, persisted_mean_s=mean_s)
        return pb.GetStatsResponse(
            paths=[path], pools=[pb.PoolStats(path=OPTIMIZED, pool_timeout_s=3.0)]
        )

    total = summed([answer(3, 1.0), answer(1, 5.0), answer(0, 0.0)], silent=0)
    assert total.paths[0].persisted_mean_s == pytest.approx(2.0)
    assert summed([answer(0, 0.0)], silent=0).paths[0].persisted_mean_s == 0.0
    assert total.pools[0].pool_timeout_s == 3.0


def test_the_workers_are_told_in_their_order_and_the_silent_ones_counted() -> None:
    answers = []
    for index, seconds in ((2, 7), (0, 9)):
        answer = pb.GetStatsResponse()
        answer.started_at.seconds = seconds
        answer.workers.add(index=index, saves=index)
        answers.append(answer)
    total = summed(answers, silent=1)
    assert [(worker.index, worker.saves) for worker in total.workers] == [(0, 0), (2, 2)]
    assert total.silent_workers == 1
    assert total.started_at.seconds == 7
    assert not total.HasField("cache")


def test_histograms_are_added_bucket_by_bucket() -> None:
    def answer(buckets: dict[int, int]) -> pb.GetStatsResponse:
        durations = pb.Durations(count=sum(buckets.values()), buckets=buckets)
        return pb.GetStatsResponse(
            arms=[pb.ArmStats(path=OPTIMIZED, persisted_durations=durations)]
        )

    total = summed([answer({64: 1, 66: 2}), answer({66: 3})], silent=0)
    (arm,) = total.arms
    assert dict(arm.persisted_durations.buckets) == {64: 1, 66: 5}
    assert arm.persisted_durations.count == 6


def test_each_worker_keeps_its_own_trip() -> None:
    answers = [pb.GetStatsResponse(workers=[pb.WorkerStats(index=index)]) for index in range(2)]
    answers[1].tripped = True
    answers[1].workers[0].trip.saves = 7
    total = summed(answers, silent=0)
    assert total.tripped
    assert [worker.HasField("trip") for worker in total.workers] == [False, True]
