"""The automatic trip: what makes it, what does not, and who takes it back."""

import logging
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain.errors import CommitUnknown, StorageUnavailable
from statekeep_server.domain.model import Outcome, Path, RunKey
from statekeep_server.flags import ENABLE, FLEET, LOG_LEVEL, ROLLOUT, FlagChange, Flags, Scope
from statekeep_server.service.answers import Limit, Tripped
from statekeep_server.service.trip import (
    BAD_INTERVALS,
    INTERVAL_S,
    INTERVALS,
    MIN_SAVES,
    Trip,
    TripLimits,
)
from tests.support.clock import ManualClock
from tests.support.world import World, command, open_world

LIMITS = TripLimits(fallback_rate=0.1, mean_s=0.25, p99_s=2.0)
OPTIMIZED = Flags(enable_optimized_persistence=True)
GOOD_S = 0.005


def make(limits: TripLimits = LIMITS) -> tuple[Trip, ManualClock]:
    clock = ManualClock()
    return Trip(clock, limits), clock


def interval(
    trip: Trip,
    clock: ManualClock,
    *,
    saves: int = 200,
    duration_s: float = GOOD_S,
    fallbacks: int = 0,
    standard: int = 0,
    standard_s: float = GOOD_S,
) -> None:
    """Let an interval with its saves pass."""
    for _ in range(saves):
        trip.served(Path.OPTIMIZED, duration_s)
    for _ in range(fallbacks):
        trip.fell_back()
    for _ in range(standard):
        trip.served(Path.STANDARD, standard_s)
    clock.advance(INTERVAL_S)
    trip.served(Path.OPTIMIZED, GOOD_S)  # somebody has to look


def why(trip: Trip) -> Tripped | None:
    """Ask anew: a type checker does not know that it changes."""
    return trip.tripped


def change(name: str, scope: Scope = FLEET) -> FlagChange:
    return FlagChange(
        version=1,
        name=name,
        scope=scope,
        before=None,
        after=None,
        changed_by="somebody",
        changed_at_us=0,
    )


@pytest.mark.parametrize(
    ("bad", "crossed"),
    [
        ({"fallbacks": 40}, Limit.FALLBACK_RATE),
        ({"duration_s": 0.4}, Limit.MEAN),
    ],
)
def test_what_is_bad_for_long_trips(
    bad: dict[str, float], crossed: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    trip, clock = make()
    for _ in range(BAD_INTERVALS - 1):
        interval(trip, clock, **bad)  # type: ignore[arg-type]  # counts and seconds
    assert why(trip) is None
    with caplog.at_level(logging.ERROR, logger="statekeep.trip"):
        interval(trip, clock, **bad)  # type: ignore[arg-type]  # counts and seconds
    assert trip.tripped is not None
    assert trip.tripped.crossed is crossed
    assert trip.tripped.value > trip.tripped.limit
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith("Optimized persistence tripped")
    assert f"crossed={crossed} value={trip.tripped.value:.4f}" in said
    assert f"saves={trip.tripped.saves}" in said


def test_a_slow_hundredth_trips() -> None:
    trip, clock = make()
    for _ in range(BAD_INTERVALS):
        for _ in range(5):
            trip.served(Path.OPTIMIZED, 3.0)
        interval(trip, clock)
    assert trip.tripped is not None
    assert trip.tripped.crossed is Limit.P99


def test_one_hiccup_does_not_trip_however_bad() -> None:
    trip, clock = make()
    for _ in range(BAD_INTERVALS - 1):
        interval(trip, clock, saves=0, duration_s=30.0, fallbacks=5_000)
    for _ in range(2 * INTERVALS):
        interval(trip, clock, saves=100)
    assert trip.tripped is None


def test_few_saves_do_not_trip() -> None:
    trip, clock = make()
    for _ in range(3 * INTERVALS):
        interval(trip, clock, saves=0, fallbacks=MIN_SAVES // INTERVALS - 2)
    assert trip.tripped is None


def test_a_database_that_is_slow_for_both_does_not_trip() -> None:
    trip, clock = make()
    for _ in range(2 * INTERVALS):
        interval(trip, clock, duration_s=1.0, standard=200, standard_s=1.2)
    assert trip.tripped is None
    for _ in range(INTERVALS):
        interval(trip, clock, duration_s=1.0, standard=200)
    assert trip.tripped is not None


def test_what_is_long_ago_is_forgotten() -> None:
    trip, clock = make()
    for _ in range(BAD_INTERVALS - 1):
        interval(trip, clock, fallbacks=40)
    clock.advance(INTERVALS * INTERVAL_S)
    interval(trip, clock, fallbacks=40)
    assert trip.tripped is None


def test_a_limit_of_nothing_is_none() -> None:
    trip, clock = make(TripLimits(fallback_rate=0.0, mean_s=0.0, p99_s=0.0))
    for _ in range(2 * INTERVALS):
        interval(trip, clock, fallbacks=400, duration_s=20.0)
    assert trip.tripped is None


def tripped() -> tuple[Trip, ManualClock]:
    trip, clock = make()
    for _ in range(BAD_INTERVALS):
        interval(trip, clock, fallbacks=100)
    assert trip.tripped is not None
    return trip, clock


def test_once_tripped_standard_serves_everyone() -> None:
    trip, _ = tripped()
    key = RunKey("default", "own")
    flags = Flags(
        enable_optimized_persistence=True, tenants={"t": 10_000}, runs={key: True}, shadow=True
    )
    guarded = trip.guard(flags)
    assert guarded.only_path is Path.STANDARD
    assert guarded.shadow, "what is about no path stays"
    assert trip.guard(flags) is guarded, "made once"
    assert trip.guard(OPTIMIZED).only_path is Path.STANDARD


def test_nothing_comes_back_by_itself() -> None:
    trip, clock = tripped()
    before = trip.tripped
    clock.advance(1_000_000.0)
    for _ in range(3 * INTERVALS):
        interval(trip, clock, saves=1_000)
    assert trip.tripped is before


@pytest.mark.parametrize("name", [ENABLE, ROLLOUT])
def test_who_sets_the_path_again_has_looked(name: str, caplog: pytest.LogCaptureFixture) -> None:
    trip, clock = tripped()
    with caplog.at_level(logging.WARNING, logger="statekeep.trip"):
        trip.follow(change(name))
    assert "the trip was reset" in caplog.text
    assert trip.tripped is None
    assert trip.guard(OPTIMIZED) is OPTIMIZED
    interval(trip, clock, fallbacks=1_000)
    assert trip.tripped is None, "the window begins anew"


@pytest.mark.parametrize("other", [change(LOG_LEVEL), change(ENABLE, Scope("one tenant"))])
def test_other_changes_do_not_reset(other: FlagChange) -> None:
    trip, _ = tripped()
    trip.follow(other)
    assert trip.tripped is not None


def test_a_reset_of_what_did_not_trip_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    trip, _ = make()
    trip.reset()
    assert not caplog.records


minutes = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([0.001, 0.2, 0.5, 5.0]), st.integers(0, 30)),
    max_size=20,
)


@given(minutes)
def test_a_trip_has_its_reasons_and_stays(load: list[tuple[int, float, int]]) -> None:
    trip, clock = make()
    first = None
    for saves, duration_s, fallbacks in load:
        interval(trip, clock, saves=saves, duration_s=duration_s, fallbacks=fallbacks)
        if first is None and trip.tripped is not None:
            first = trip.tripped
            assert first.value > first.limit > 0
            assert first.saves >= MIN_SAVES
        assert trip.tripped is first
    bad = sum(
        fallbacks * 10 > saves or duration_s > LIMITS.mean_s
        for saves, duration_s, fallbacks in load
    )
    if bad < BAD_INTERVALS:
        assert first is None


# In the service.


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as opened:
        yield opened


async def bad_minute(world: World) -> None:
    """Fall back now and then: the breaker, which opens after five in a row, never sees it."""
    for _ in range(BAD_INTERVALS):
        for number in range(60):
            if number % 3 == 0:
                world.optimized.lose_commits = 1
            await world.facade.save(command({"n": number}, checkpoint_type="MANUAL"))
        world.clock.advance(INTERVAL_S)
    await world.facade.save(command())


async def test_the_service_goes_to_standard_and_back(world: World) -> None:
    await bad_minute(world)
    statistics = world.facade.statistics()
    assert statistics.tripped is not None
    assert statistics.tripped.crossed is Limit.FALLBACK_RATE
    ack = await world.facade.save(command())
    assert (ack.path, ack.fallback_cause) == (Path.STANDARD, None)
    assert world.facade.path_now() is Path.STANDARD
    world.facade.flag_changed(change(ENABLE))
    assert (await world.facade.save(command())).path is Path.OPTIMIZED
    assert world.facade.statistics().tripped is None


async def test_an_outage_does_not_trip(world: World) -> None:
    """Standard fails as well, and once the database is back the breaker still rests."""
    unreachable = StorageUnavailable("UNREACHABLE")
    for _ in range(BAD_INTERVALS):
        for _ in range(50):
            world.optimized.always["append_many"] = unreachable
            world.standard.always["append_many"] = unreachable
            with pytest.raises(StorageUnavailable):
                await world.facade.save(command(checkpoint_type="MANUAL"))
            world.standard.always.clear()
            ack = await world.facade.save(command(checkpoint_type="MANUAL"))
            assert ack.fallback_cause is not None
        world.clock.advance(INTERVAL_S)
    await world.facade.save(command(checkpoint_type="MANUAL"))  # somebody has to look
    assert world.facade.statistics().tripped is None
    world.optimized.always.clear()
    world.clock.advance(INTERVALS * INTERVAL_S)
    assert (await world.facade.save(command({"n": 9}))).path is Path.OPTIMIZED
    assert world.facade.statistics().tripped is None


async def test_arms_are_counted_by_what_was_chosen(world: World) -> None:
    world.flags = Flags(runs={RunKey("default", "chosen"): True})
    chosen, other = RunKey("default", "chosen"), RunKey("default", "other")
    await world.facade.save(command(key=chosen))
    await world.facade.save(command(key=chosen))
    await world.facade.save(command(key=other))
    world.optimized.lose_commits = 1
    ack = await world.facade.save(command({"n": 2}, key=chosen))
    assert (ack.path, ack.result.outcome) == (Path.STANDARD, Outcome.PERSISTED)
    world.optimized.always["append_many"] = world.standard.always["append_many"] = RuntimeError()
    with pytest.raises(RuntimeError):
        await world.facade.save(command({"n": 3}, key=other))
    world.standard.always["append_many"] = CommitUnknown()
    with pytest.raises(CommitUnknown):
        await world.facade.save(command({"n": 4}, key=chosen))
    standard, optimized = world.facade.statistics().arms
    assert (optimized.persisted_durations.count, optimized.skipped_durations.count) == (2, 1)
    assert (optimized.fallbacks, optimized.failures) == (1, {"COMMIT_UNKNOWN": 1})
    assert (standard.persisted_durations.count, standard.fallbacks) == (1, 0)
    assert standard.failures == {"UNEXPECTED_ERROR": 1}


async def test_arms_begin_anew_with_another_rollout_and_with_no_other_change(world: World) -> None:
    await world.facade.save(command())
    since_us = world.facade.statistics().arms_since_us
    world.clock.advance(1.0)
    world.flags = Flags(enable_optimized_persistence=True, log_level="DEBUG")
    await world.facade.save(command())
    statistics = world.facade.statistics()
    assert statistics.arms_since_us == since_us
    assert (statistics.arms[1].saves, statistics.arms[1].skipped) == (2, 1)
    assert statistics.arms[1].rows_written == 4
    world.flags = Flags(enable_optimized_persistence=True, rollout=5_000)
    statistics = world.facade.statistics()
    assert statistics.arms_since_us == since_us + 1_000_000
    for arm in statistics.arms:
        assert (arm.saves, arm.skipped, arm.rows_written, arm.statements) == (0, 0, 0, 0)
        assert arm.persisted_durations.count == arm.skipped_durations.count == 0
