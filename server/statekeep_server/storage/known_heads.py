"""What this server knows of heads and of the database's clock, to save in one statement.

Knowing is never trusted: the statement names the version and the audit hash that it expects, and
a run whose head has moved is not touched by it.
"""

from collections.abc import Callable

from statekeep_server.busy import RECENT_RUNS, BusyFirst, RecentRuns
from statekeep_server.domain.model import Head, RunKey

HEAD_OVERHEAD_BYTES = 900
"""The values of a head, its hashes and its place in the cache: 850 by tracemalloc, rounded up."""


class Absent:
    """Stands for the head of a run that was never written."""


ABSENT = Absent()

Known = Head | Absent


def _size_bytes(_key: RunKey, known: Known) -> int:
    digests = 0 if isinstance(known, Absent) else len(known.field_digests)
    return HEAD_OVERHEAD_BYTES + digests


class KnownHeads:
    """The heads last seen, mostly of busy runs, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        # Each has its overhead, so there are fewer than bytes.
        self._heads: BusyFirst[Known] = BusyFirst(
            max_entries=max_bytes, max_bytes=max_bytes, size_bytes=_size_bytes
        )
        self._recent = RecentRuns(RECENT_RUNS)

    def get(self, key: RunKey) -> Known | None:
        """What is known of a head; None for nothing."""
        return self._heads.get(key)

    def read(self, key: RunKey, head: Head | None) -> None:
        """Remember a head that was read; None for a run that was never written."""
        self._remember(key, head, busy=False)

    def wrote(self, key: RunKey, head: Head) -> None:
        """Remember a head that was committed: a run that is written again and again is busy."""
        self._remember(key, head, busy=self._recent.came_back(key))

    def forget(self, key: RunKey) -> None:
        """Forget a head that turned out to have moved."""
        self._heads.forget(key)

    def _remember(self, key: RunKey, head: Head | None, *, busy: bool) -> None:
        known = self._heads.get(key)
        if head is None:
            if known is None:
                self._heads.put(key, ABSENT, busy=False)
        elif not isinstance(known, Head) or known.version <= head.version:
            self._heads.put(key, head, busy=busy)


class DatabaseClock:
    """The database's clock, as its last answer told it and ours went on from there."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._answer_us: int | None = None
        self._answered_s = 0.0

    def told(self, now_us: int) -> None:
        """Take note of an answer."""
        self._answer_us = now_us
        self._answered_s = self._monotonic_s()

    def now_us(self) -> int | None:
        """What the database's clock shows, to within the time of a round trip; None before any."""
        if self._answer_us is None:
            return None
        return self._answer_us + round((self._monotonic_s() - self._answered_s) * 1_000_000)
