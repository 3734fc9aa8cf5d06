"""The local head cache: bounded in entries, bytes and age; newest version wins."""

import pytest

from statekeep_server.busy import RECENT_RUNS
from statekeep_server.cache.local import LocalHeadCache, entry_bytes
from statekeep_server.domain.model import RunKey
from statekeep_server.service.ports import CachedHead
from tests.support.clock import ManualClock

A, B, C = (RunKey("tenant", name) for name in "abc")
ENTRY = entry_bytes(A)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make(
    clock: ManualClock, *, max_entries: int = 100, max_size_bytes: int = 1_000_000
) -> LocalHeadCache:
    return LocalHeadCache(
        max_entries=max_entries, max_size_bytes=max_size_bytes, ttl_s=60.0, timer=clock.monotonic_s
    )


def head(version: int) -> CachedHead:
    return CachedHead(version, bytes([version]) * 32)


async def test_it_remembers_and_counts(clock: ManualClock) -> None:
    cache = make(clock)
    assert await cache.get(A) is None
    await cache.put(A, head(1))
    assert await cache.get(A) == head(1)
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.entries) == (1, 1, 1)
    assert statistics.size_bytes == ENTRY
    assert (statistics.max_entries, statistics.max_size_bytes) == (100, 1_000_000)


async def test_tenants_do_not_share_entries(clock: ManualClock) -> None:
    cache = make(clock)
    await cache.put(RunKey("one", "run"), head(1))
    assert await cache.get(RunKey("two", "run")) is None


async def test_an_older_version_never_replaces_a_newer(clock: ManualClock) -> None:
    cache = make(clock)
    await cache.put(A, head(2))
    await cache.put(A, head(1))
    assert await cache.get(A) == head(2)
    await cache.put(A, head(3))
    assert await cache.get(A) == head(3)


async def test_invalidation_forgets(clock: ManualClock) -> None:
    cache = make(clock)
    await cache.put(A, head(1))
    await cache.invalidate(A)
    await cache.invalidate(B)
    assert await cache.get(A) is None
    assert cache.statistics().invalidations == 1


async def test_age_forgets(clock: ManualClock) -> None:
    cache = make(clock)
    await cache.put(A, head(1))
    clock.advance(60.0)
    assert await cache.get(A) is None
    assert cache.statistics().evictions == 1


async def come_back(cache: LocalHeadCache, *keys: RunKey) -> None:
    """Save runs twice, which makes them busy."""
    for key in keys:
        for _ in range(2):
            await cache.invalidate(key)
            await cache.put(key, head(1))


async def test_the_least_recently_used_goes_first(clock: ManualClock) -> None:
    cache = make(clock, max_entries=2)
    await come_back(cache, A, B)
    await cache.get(A)
    await come_back(cache, C)
    assert await cache.get(B) is None
    assert await cache.get(A) == head(1)
    assert cache.statistics().evictions == 1


async def test_runs_that_are_saved_once_take_no_room_from_busy_ones(clock: ManualClock) -> None:
    cache = make(clock, max_entries=80)
    await come_back(cache, A)
    for number in range(1_000):
        await cache.put(RunKey("tenant", f"once-{number}"), head(1))
    assert await cache.get(A) == head(1)
    assert cache.statistics().entries == 11


async def test_a_busy_run_that_was_away_for_long_remains_one(clock: ManualClock) -> None:
    cache = make(clock, max_entries=80)
    once = [RunKey("tenant", f"once-{number}") for number in range(2 * RECENT_RUNS)]
    await come_back(cache, A)
    for _ in range(2):
        for key in once:
            await cache.put(key, head(1))
        assert await cache.get(A) == head(1)
        await cache.invalidate(A)
        await cache.put(A, head(1))
    for key in once:
        await cache.put(key, head(1))
    assert await cache.get(A) == head(1)


async def test_bytes_are_bounded(clock: ManualClock) -> None:
    cache = make(clock, max_size_bytes=2 * ENTRY)
    await come_back(cache, A, B, C)
    statistics = cache.statistics()
    assert statistics.entries == 2
    assert statistics.size_bytes <= 2 * ENTRY


async def test_an_entry_larger_than_the_cache_is_not_kept(clock: ManualClock) -> None:
    cache = make(clock, max_size_bytes=ENTRY - 1)
    await cache.put(A, head(1))
    assert cache.statistics().entries == 0


async def test_what_is_too_old_is_not_counted_as_held(clock: ManualClock) -> None:
    cache = make(clock)
    await cache.put(A, head(1))
    clock.advance(59.0)
    await cache.put(B, head(1))
    clock.advance(1.0)
    statistics = cache.statistics()
    assert (statistics.entries, statistics.evictions) == (1, 1)
