"""The figures by which operators judge the optimized path."""

from dataclasses import dataclass, field

import pytest

from statekeep_server.service.kpis import Kpis, kpis
from tests.support.world import command, open_world


@dataclass
class Counted:
    path: str = "OPTIMIZED"
    saves: int = 0
    persisted: int = 0
    skipped: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)
    persisted_mean_s: float = 0.0
    skipped_mean_s: float = 0.0


@dataclass
class Cache:
    hits: int
    misses: int


@dataclass
class Pool:
    pool_size: int
    max_overflow: int
    checked_out: int


def test_nothing_counted_is_no_rate() -> None:
    assert kpis([Counted()], Cache(0, 0), []) == Kpis(
        skip_rate=None,
        saved_mean_s=None,
        skipped_mean_s=None,
        pool_use=None,
        fallback_rate=None,
        cache_hit_rate=None,
        writes_avoided=0,
    )
    assert kpis([], None, []).cache_hit_rate is None


def test_both_paths_are_taken_together() -> None:
    optimized = Counted("OPTIMIZED", 90, 30, 60, {"COMMIT_UNKNOWN": 10}, 0.010, 0.002)
    standard = Counted("STANDARD", 10, 10, 0, {}, 0.050, 0.0)
    found = kpis([standard, optimized], Cache(3, 1), [Pool(10, 15, 5), Pool(15, 25, 30)])
    assert found.skip_rate == 0.6
    assert found.saved_mean_s == pytest.approx(0.020)
    assert found.skipped_mean_s == pytest.approx(0.002)
    assert found.pool_use == 0.75
    assert found.fallback_rate == 0.1
    assert found.cache_hit_rate == 0.75
    assert found.writes_avoided == 240


async def test_a_skipped_save_avoids_what_a_persisted_one_writes() -> None:
    async with open_world() as world:
        await world.facade.save(command())
        (_, written) = world.facade.statistics().paths
        await world.facade.save(command())
        statistics = world.facade.statistics()
        found = kpis(statistics.paths, statistics.cache, [])
    assert found.writes_avoided == written.rows_written
