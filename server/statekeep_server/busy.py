"""Memories that runs which are seen once cannot fill.

A run that is saved once needs nothing remembered, and there can be any number of them. So a run is
*new* at first, and all new ones share an eighth of a memory; one that comes back while it is among
those seen lately is *busy*, and has the rest. This is 2Q (Johnson and Shasha, 1994); decision 0021.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from statekeep_server.domain.model import RunKey

Value = TypeVar("Value")

NEW_SHARE = 8
"""New runs have an eighth of a memory."""

RECENT_RUNS = 4_096
"""At least so many runs, and at most twice as many, count as seen lately."""


class RecentRuns:
    """Tells runs that come back from those that are seen once.

    Args:
        runs: So many count as seen lately, and up to twice as many, at some 60 bytes each.
    """

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._now: set[int] = set()
        self._before: set[int] = set()

    def came_back(self, key: RunKey) -> bool:
        """Whether a run was seen lately; it is from now on."""
        mark = hash(key)  # two runs with one hash both count as seen, which does no harm
        known = mark in self._now or mark in self._before
        self._now.add(mark)
        if len(self._now) >= self._runs:
            self._now, self._before = set(), self._now
        return known


class BusyFirst(Generic[Value]):
    """One value for each run: of busy runs the least recently used goes first, of new the oldest.

    Own code rather than cachetools, which has no such order, and whose look-ups and changes took
    4 % of the time of a skipped save.

    Args:
        max_entries: Of all runs.
        max_bytes: Of all values, as `size_bytes` has them.
        size_bytes: What it costs to remember a value of a run, always the same.
    """

    def __init__(
        self, *, max_entries: int, max_bytes: int, size_bytes: Callable[[RunKey, Value], int]
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size_bytes = size_bytes
        self._busy: OrderedDict[RunKey, Value] = OrderedDict()
        self._new: OrderedDict[RunKey, Value] = OrderedDict()
        self._busy_bytes = 0
        self._new_bytes = 0

    def __len__(self) -> int:
        return len(self._busy) + len(self._new)

    @property
    def total_bytes(self) -> int:
        """What all values cost."""
        return self._busy_bytes + self._new_bytes

    def items(self) -> list[tuple[RunKey, Value]]:
        """All of them, as they stand."""
        return [*self._new.items(), *self._busy.items()]

    def get(self, key: RunKey) -> Value | None:
        """Look a run up; of busy ones it is the most recently used then."""
        value = self._busy.get(key)
        if value is None:
            return self._new.get(key)
        self._busy.move_to_end(key)
        return value

    def put(self, key: RunKey, value: Value, *, busy: bool) -> int:
        """Remember a value; return how many others had to go. A busy run remains one.

        What does not fit is not remembered, and nothing older of its run either.
        """
        busy = busy or key in self._busy
        self.forget(key)
        size_bytes = self._size_bytes(key, value)
        if size_bytes > self._max_bytes or self._max_entries < 1:
            return 0
        if busy:
            self._busy[key] = value
            self._busy_bytes += size_bytes
        else:
            self._new[key] = value
            self._new_bytes += size_bytes
        return self._make_room()

    def forget(self, key: RunKey) -> bool:
        """Forget a run; False if nothing was known of it."""
        value = self._busy.pop(key, None)
        if value is not None:
            self._busy_bytes -= self._size_bytes(key, value)
            return True
        value = self._new.pop(key, None)
        if value is not None:
            self._new_bytes -= self._size_bytes(key, value)
            return True
        return False

    def _make_room(self) -> int:
        gone = 0
        while len(self._new) > 1 and (
            self._new_bytes * NEW_SHARE > self._max_bytes
            or len(self._new) * NEW_SHARE > self._max_entries
        ):
            self.forget(next(iter(self._new)))
            gone += 1
        while self.total_bytes > self._max_bytes or len(self) > self._max_entries:
            self.forget(next(iter(self._busy or self._new)))
            gone += 1
        return gone
