"""What the service measures: counted where it happens, read when somebody collects."""

from dataclasses import replace

import pytest

from statekeep_server.domain.errors import CommitUnknown, StateError, StorageUnavailable
from statekeep_server.flags import POSITIONS, Flags
from statekeep_server.service.measures import REFUSALS
from statekeep_server.service.ports import PoolStatistics
from statekeep_server.telemetry import names
from statekeep_server.telemetry.buckets import Bucketed
from tests.support.world import command, open_world, points


async def test_saves_are_counted_by_outcome_path_and_reason() -> None:
    async with open_world() as world:
        for step in (1, 1, 2):
            await world.facade.save(command({"step": step}))
        assert points(world, names.SAVES_TOTAL) == {
            ("PERSISTED", "STANDARD"): 0,
            ("SKIPPED", "STANDARD"): 0,
            ("PERSISTED", "OPTIMIZED"): 2,
            ("SKIPPED", "OPTIMIZED"): 1,
        }
        assert points(world, names.DECISIONS) == {
            ("FIRST_SAVE", "OPTIMIZED"): 1,
            ("CHANGED", "OPTIMIZED"): 1,
            ("UNCHANGED", "OPTIMIZED"): 1,
        }
        durations = points(world, names.SAVE_DURATION)["PERSISTED", "OPTIMIZED"]
        assert isinstance(durations, Bucketed)
        assert sum(durations.counts) == 2
        sizes = points(world, names.GROUP_SIZE)["saves",]
        assert isinstance(sizes, Bucketed)
        assert (sum(sizes.counts), sizes.sum) == (2, 2.0)
        assert points(world, names.CACHE_ENTRIES) == {(): 1}


async def test_what_is_refused_is_told_from_what_fails() -> None:
    async with open_world(grouped=False) as world:
        with pytest.raises(StateError):
            await world.facade.save(command(expected_version=9))
        world.flags = Flags()
        world.standard.always["append_many"] = StorageUnavailable("DISK_FULL")
        with pytest.raises(StateError):
            await world.facade.save(command())
        world.standard.always["append_many"] = CommitUnknown()
        with pytest.raises(StateError):
            await world.facade.save(command())
        assert points(world, names.REFUSALS) == {("VERSION_CONFLICT", "OPTIMIZED"): 1}
        assert {(*labels, count) for labels, count in points(world, names.FAILURES).items()} == {
            ("STORAGE_UNAVAILABLE", "STANDARD", 1),
            ("COMMIT_UNKNOWN", "STANDARD", 1),
            ("UNEXPECTED_ERROR", "STANDARD", 0),
            ("STORAGE_UNAVAILABLE", "OPTIMIZED", 0),
            ("COMMIT_UNKNOWN", "OPTIMIZED", 0),
            ("UNEXPECTED_ERROR", "OPTIMIZED", 0),
        }
        assert points(world, names.COMMITS_UNKNOWN) == {("STANDARD",): 1, ("OPTIMIZED",): 0}
        assert names.GROUP_SIZE not in {each.metric for each in world.facade.readings()}
    assert "OVERLOADED" in REFUSALS
    assert not {"COMMIT_UNKNOWN", "CIRCUIT_OPEN"} & REFUSALS


async def test_a_first_fallback_is_seen_as_growth() -> None:
    async with open_world(grouped=False) as world:
        before = points(world, names.FALLBACKS)
        assert set(before.values()) == {0}
        world.optimized.always["append_many"] = StorageUnavailable("DISK_FULL")
        await world.facade.save(command())
        assert points(world, names.FALLBACKS) == {**before, ("STORAGE_UNAVAILABLE",): 1}


async def test_a_pool_is_told_by_path_and_what_has_none_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = PoolStatistics(pool_size=15, max_overflow=25, pool_timeout_s=3.0, checked_out=7, idle=2)
    async with open_world() as world:
        assert points(world, names.POOL_CONNECTIONS) == {}
        counted = replace(world.optimized.statistics(), pool=pool)
        monkeypatch.setattr(world.optimized, "statistics", lambda: counted)
        assert points(world, names.POOL_CONNECTIONS) == {
            ("used", "OPTIMIZED"): 7,
            ("idle", "OPTIMIZED"): 2,
            ("limit", "OPTIMIZED"): 40,
        }


async def test_switches_are_what_holds_here() -> None:
    async with open_world() as world:
        world.flags = Flags(enable_optimized_persistence=True, rollout=POSITIONS // 4)
        assert points(world, names.ROLLOUT) == {(): 0.25}
        assert points(world, names.OPTIMIZED) == {(): True}
        world.flags = Flags()
        assert points(world, names.ROLLOUT) == {(): 0.0}
        assert points(world, names.CIRCUIT_OPEN) == {(): False}
