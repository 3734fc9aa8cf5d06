"""The head cache in this process: least recently used first out, with an age limit.

Bounded in entries and in bytes. It never raises, and what it says only chooses a route.

Own code rather than cachetools: two look-ups and a change for every save took 4 % of the time of a
skipped save there.
"""

from collections import OrderedDict
from collections.abc import Callable

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
        # The least recently used first.
        self._entries: OrderedDict[RunKey, _Entry] = OrderedDict()
        self._size_bytes = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        self._invalidations = 0

    async def get(self, key: RunKey) -> CachedHead | None:
        """Look a head up."""
        entry = self._entries.get(key)
        if entry is not None and entry.expires_s <= self._timer():
            self._evict(key)
            entry = None
        if entry is None:
            self._misses += 1
            return None
        self._entries.move_to_end(key)
        self._hits += 1
        return entry.head

    async def put(self, key: RunKey, head: CachedHead) -> None:
        """Remember a committed head, unless a newer one is known."""
        known = self._entries.get(key)
        if known is None:
            self._size_bytes += entry_bytes(key)
        elif known.head.version > head.version:
            return
        self._entries[key] = _Entry(head, self._timer() + self._ttl_s)
        self._entries.move_to_end(key)
        while self._size_bytes > self._max_size_bytes or len(self._entries) > self._max_entries:
            self._evict(next(iter(self._entries)))

    async def invalidate(self, key: RunKey) -> None:
        """Forget a head."""
        if self._forget(key):
            self._invalidations += 1

    def statistics(self) -> CacheStatistics:
        """Count what the cache holds and did."""
        now_s = self._timer()
        for key in [key for key, entry in self._entries.items() if entry.expires_s <= now_s]:
            self._evict(key)
        return CacheStatistics(
            entries=len(self._entries),
            max_entries=self._max_entries,
            size_bytes=self._size_bytes,
            max_size_bytes=self._max_size_bytes,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            invalidations=self._invalidations,
        )

    def _evict(self, key: RunKey) -> None:
        self._forget(key)
        self._evictions += 1

    def _forget(self, key: RunKey) -> bool:
        if self._entries.pop(key, None) is None:
            return False
        self._size_bytes -= entry_bytes(key)
        return True
