"""The automatic trip: a server whose optimized path is bad goes to standard by itself, and stays.

The circuit breaker deals with a path that is down: it rests and probes. The trip deals with a path
that works and is bad at it: too many of its saves have to be served by standard, or they are slow.
Time is cut into intervals, and the window is the last few that are over. The server trips when the
saves of the window cross a limit and those of at least three of its intervals cross the same limit:
a failover or a stalled disk touches one or two of them and trips nothing.

Nothing comes back by itself. Whoever sets the optimized path or its share again has looked
(`reset`); a path that returned by the clock would flap for as long as its fault lasts.
"""

import logging
from collections import deque
from dataclasses import dataclass, replace
from types import MappingProxyType

from statekeep_server.domain.model import Path
from statekeep_server.flags import ENABLE, FLEET, ROLLOUT, FlagChange, Flags
from statekeep_server.service.answers import Limit, Tripped
from statekeep_server.service.histogram import Histogram, added, quantile_s
from statekeep_server.service.ports import Clock

logger = logging.getLogger("statekeep.trip")

INTERVAL_S = 10.0
INTERVALS = 6
"""A window of a minute: long enough for a p99, short enough to notice before users do."""

BAD_INTERVALS = 3
"""A failover or a stalled disk lasts for one or two of them."""

MIN_SAVES = 100
"""Fewer say nothing about a rate of a tenth, and have no p99."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TripLimits:
    """When a server trips; 0 switches a limit off.

    Attributes:
        fallback_rate: Share of the saves that standard had to serve, of 1.
        mean_s, p99_s: Of the optimized path's acknowledged saves.
    """

    fallback_rate: float
    mean_s: float
    p99_s: float


class _Arm:
    def __init__(self) -> None:
        self.durations = Histogram()
        self.fallbacks = 0


class _Interval:
    """The saves of some seconds, or of several intervals together."""

    def __init__(self, optimized: _Arm, standard: _Arm) -> None:
        self.saves = optimized.durations.count + optimized.fallbacks
        self.fallbacks = optimized.fallbacks
        self.optimized = optimized.durations.durations()
        self.standard = standard.durations.durations()

    def with_later(self, later: "_Interval") -> "_Interval":
        """Both as one."""
        total = object.__new__(_Interval)
        total.saves = self.saves + later.saves
        total.fallbacks = self.fallbacks + later.fallbacks
        total.optimized = added(self.optimized, later.optimized)
        total.standard = added(self.standard, later.standard)
        return total

    def value(self, limit: Limit) -> float:
        """What is compared with a limit; 0.0 where a slow database is as slow on standard."""
        if limit is Limit.FALLBACK_RATE:
            return self.fallbacks / max(1, self.saves)
        ours, theirs = self.optimized, self.standard
        mean_s = ours.sum_s / max(1, ours.count)
        if theirs.count >= MIN_SAVES and theirs.sum_s / theirs.count >= mean_s:
            return 0.0
        return mean_s if limit is Limit.MEAN else quantile_s(ours, 0.99)


class Trip:
    """Watches the saves of the optimized path, and says when it should not be used.

    Args:
        limits: By default those of the settings.
    """

    def __init__(self, clock: Clock, limits: TripLimits) -> None:
        self._clock = clock
        self._limits = {
            Limit.FALLBACK_RATE: limits.fallback_rate,
            Limit.MEAN: limits.mean_s,
            Limit.P99: limits.p99_s,
        }
        self._past: deque[_Interval] = deque(maxlen=INTERVALS)
        self._arms = {path: _Arm() for path in Path}
        self._ends_s = clock.monotonic_s() + INTERVAL_S
        self._guarded: tuple[Flags, Flags] | None = None
        self.tripped: Tripped | None = None

    def served(self, path: Path, duration_s: float) -> None:
        """A save was acknowledged by the path that its flags chose."""
        self._advance()
        self._arms[path].durations.record(duration_s)

    def fell_back(self) -> None:
        """Standard served what the optimized path could not.

        Saves that standard could not serve either are no fault of the optimized path, and those
        that the breaker kept off it say nothing new about it: neither comes here.
        """
        self._advance()
        self._arms[Path.OPTIMIZED].fallbacks += 1

    def guard(self, flags: Flags) -> Flags:
        """Give the flags that hold here: once tripped, standard serves every run."""
        if self.tripped is None:
            return flags
        if self._guarded is None or self._guarded[0] is not flags:
            standard = replace(
                flags,
                enable_optimized_persistence=False,
                tenants=MappingProxyType({}),
                runs=MappingProxyType({}),
            )
            self._guarded = (flags, standard)
        return self._guarded[1]

    def reset(self) -> None:
        """Let the flags hold again, with an empty window."""
        if self.tripped is not None:
            logger.warning("Optimized persistence may serve again: the trip was reset")
        self.tripped = None
        self._forget()

    def follow(self, change: FlagChange) -> None:
        """Reset when somebody sets or unsets the optimized path or its share for the fleet."""
        if change.scope == FLEET and change.name in {ENABLE, ROLLOUT}:
            self.reset()

    def _advance(self) -> None:
        """End the interval if its time is over, and look at the window."""
        now_s = self._clock.monotonic_s()
        if now_s < self._ends_s:
            return
        ended = _Interval(self._arms[Path.OPTIMIZED], self._arms[Path.STANDARD])
        self._past.append(ended)
        # Intervals without a save were not looked at; they leave the window all the same.
        for _ in range(min(INTERVALS, int((now_s - self._ends_s) / INTERVAL_S))):
            self._past.append(_Interval(_Arm(), _Arm()))
        self._arms = {path: _Arm() for path in Path}
        self._ends_s = now_s + INTERVAL_S
        if self.tripped is None:
            self._judge()

    def _judge(self) -> None:
        window = _Interval(_Arm(), _Arm())
        for interval in self._past:
            window = window.with_later(interval)
        if window.saves < MIN_SAVES:
            return
        for crossed, limit in self._limits.items():
            bad = sum(interval.value(crossed) > limit for interval in self._past)
            value = window.value(crossed)
            if limit and value > limit and bad >= BAD_INTERVALS:
                self._trip(crossed, value, limit, window.saves)
                return

    def _trip(self, crossed: Limit, value: float, limit: float, saves: int) -> None:
        at_us = self._clock.now_us()
        self.tripped = Tripped(at_us=at_us, crossed=crossed, value=value, limit=limit, saves=saves)
        self._forget()
        logger.error(
            "Optimized persistence tripped, standard serves until it is reset: "
            "crossed=%s value=%.4f limit=%.4f saves=%d window_s=%d",
            crossed,
            value,
            limit,
            saves,
            INTERVALS * INTERVAL_S,
        )

    def _forget(self) -> None:
        self._past.clear()
        self._arms = {path: _Arm() for path in Path}
        self._ends_s = self._clock.monotonic_s() + INTERVAL_S
