"""The head cache in this process: least recently used first out, with an age limit.

Bounded in entries and in bytes. It never raises, and what it says only chooses a route.
"""

from collections.abc import Callable

from cachetools import TTLCache

from statekeep_server.domain.model import RunKey
from statekeep_server.service.ports import CachedHead, CacheStatistics

ENTRY_OVERHEAD_BYTES = 640
"""Objects, hash and the two dictionaries: 610 by tracemalloc, rounded up."""


def entry_bytes(key: RunKey) -> int:
    """Estimate what an entry costs: the fixed part and the characters of its key."""
    return ENTRY_OVERHEAD_BYTES + len(key.tenant) + len(key.run_id)


class _Entries(TTLCache[RunKey, tuple[CachedHead, int]]):
    """A TTLCache that counts what it drops for room."""

    evictions = 0

    def popitem(self) -> tuple[RunKey, tuple[CachedHead, int]]:
        item = super().popitem()
        self.evictions += 1
        return item


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
        self._entries = _Entries(
            maxsize=max_size_bytes, ttl=ttl_s, timer=timer, getsizeof=lambda entry: entry[1]
        )
        self._expired = 0
        self._hits = 0
        self._misses = 0
        self._invalidations = 0

    async def get(self, key: RunKey) -> CachedHead | None:
        """Look a head up."""
        self._expire()
        entry = self._entries.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        return entry[0]

    async def put(self, key: RunKey, head: CachedHead) -> None:
        """Remember a committed head, unless a newer one is known."""
        self._expire()
        known = self._entries.get(key)
        if known is not None and known[0].version > head.version:
            return
        size_bytes = entry_bytes(key)
        if size_bytes > self._entries.maxsize:
            return
        if known is None and len(self._entries) >= self._max_entries:
            self._entries.popitem()
        self._entries[key] = (head, size_bytes)

    async def invalidate(self, key: RunKey) -> None:
        """Forget a head."""
        if self._entries.pop(key, None) is not None:
            self._invalidations += 1

    def statistics(self) -> CacheStatistics:
        """Count what the cache holds and did."""
        self._expire()
        return CacheStatistics(
            entries=len(self._entries),
            max_entries=self._max_entries,
            size_bytes=int(self._entries.currsize),
            max_size_bytes=int(self._entries.maxsize),
            hits=self._hits,
            misses=self._misses,
            evictions=self._entries.evictions + self._expired,
            invalidations=self._invalidations,
        )

    def _expire(self) -> None:
        self._expired += len(self._entries.expire())
