"""The head cache in this process: mostly of busy runs, with an age limit.

Bounded in entries and in bytes. It never raises, and what it says only chooses a route.
"""

from collections.abc import Callable

from statekeep_server.busy import RECENT_RUNS, BusyFirst, RecentRuns
from statekeep_server.domain.model import RunKey
from statekeep_server.domain.values import value_class
from statekeep_server.service.ports import CachedHead, CacheStatistics

ENTRY_OVERHEAD_BYTES = 500
"""Objects, hash and the dictionary's share: 484 by tracemalloc, rounded up."""


def entry_bytes(key: RunKey) -> int:
    """Estimate what an entry costs: the fixed part and the characters of its key."""
    return ENTRY_OVERHEAD_BYTES + len(key.tenant) + len(key.run_id)


@value_class()
class _Entry:
    head: CachedHead
    expires_s: float


class LocalHeadCache:
    """Implements `ports.HeadCache` for one process."""

    def __init__(
        self,
        *,
        max_entries: int,
        max_size_bytes: int,
        ttl_s: float,
        timer: Callable[[], float],
    ) -> None:
        self._max_entries = max_entries
        self._max_size_bytes = max_size_bytes
        self._ttl_s = ttl_s
        self._timer = timer
        self._entries: BusyFirst[_Entry] = BusyFirst(
            max_entries=max_entries,
            max_bytes=max_size_bytes,
            size_bytes=lambda key, _entry: entry_bytes(key),
        )
        self._recent = RecentRuns(RECENT_RUNS)
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        self._invalidations = 0

    async def get(self, key: RunKey) -> CachedHead | None:
        """Look a head up."""
        entry = self._entries.get(key)
        if entry is not None and entry.expires_s <= self._timer():
            self._entries.forget(key)
            self._evictions += 1
            entry = None
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        return entry.head

    async def put(self, key: RunKey, head: CachedHead) -> None:
        """Remember a committed head, unless a newer one is known."""
        known = self._entries.get(key)
        if known is not None and known.head.version > head.version:
            return
        entry = _Entry(head, self._timer() + self._ttl_s)
        self._evictions += self._entries.put(key, entry, busy=self._recent.came_back(key))

    async def invalidate(self, key: RunKey) -> None:
        """Forget a head, which is about to move; its run comes back."""
        if self._entries.forget(key):
            self._recent.came_back(key)
            self._invalidations += 1

    def statistics(self) -> CacheStatistics:
        """Count what the cache holds and did."""
        now_s = self._timer()
        for key, entry in self._entries.items():
            if entry.expires_s <= now_s:
                self._entries.forget(key)
                self._evictions += 1
        return CacheStatistics(
            entries=len(self._entries),
            max_entries=self._max_entries,
            size_bytes=self._entries.total_bytes,
            max_size_bytes=self._max_size_bytes,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            invalidations=self._invalidations,
        )
