"""What both arms of a rollout did since it last changed: the raw numbers of an A/B report.

An arm is the path that the flags chose for a save, whoever served it in the end: a save that fell
back counts, with all the time that it took, for the optimized arm. Both arms are counted by the
same server over the same time, and forgotten together when the rollout changes: how the load was
before says nothing about it. Batches and saves in a caller's session are left out of the durations:
an atomic batch may take another path than its runs. So are saves that are buffered.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from statekeep_server.domain.model import Outcome, Path
from statekeep_server.flags import Flags
from statekeep_server.service.answers import ArmStatistics, PathStatistics, SaveAck
from statekeep_server.service.counters import reason_of
from statekeep_server.service.histogram import Histogram
from statekeep_server.service.ports import Clock
from statekeep_server.service.trip import Trip

BREAKER = "CIRCUIT_OPEN"


class _Arm:
    def __init__(self) -> None:
        self.durations: Mapping[Outcome, Histogram] = {each: Histogram() for each in Outcome}
        self.failures: Counter[str] = Counter()
        self.fallbacks = 0


class Arms:
    """Counts saves by the path that was chosen for them.

    Args:
        trip: Is told the same, and keeps all saves on standard once it tripped.
        flags: Of this server.
        totals: What both paths counted since the server started.
    """

    def __init__(
        self,
        clock: Clock,
        trip: Trip,
        *,
        flags: Callable[[], Flags],
        totals: Callable[[], Sequence[PathStatistics]],
    ) -> None:
        self._clock = clock
        self.trip = trip
        self._flags = flags
        self._totals = totals
        self._known: Flags | None = None
        self._arms = {path: _Arm() for path in Path}
        self._before: Mapping[Path, PathStatistics] = {}
        self._rollout: object = None
        self.since_us = clock.now_us()

    def answered(self, path: Path, ack: SaveAck, duration_s: float) -> None:
        """Count an acknowledged save by its arm. A buffered one says nothing about its path yet."""
        if ack.result.outcome is Outcome.BUFFERED:
            return
        arm = self._arms[path]
        arm.durations[ack.result.outcome].record(duration_s)
        if ack.fallback_cause is None:
            self.trip.served(path, duration_s)
            return
        arm.fallbacks += 1
        if ack.fallback_cause.reason != BREAKER:
            self.trip.fell_back()

    def failed(self, path: Path, error: BaseException) -> None:
        """Count a save that was not acknowledged."""
        self._arms[path].failures[reason_of(error)] += 1

    def flags(self) -> Flags:
        """Give the flags that hold now; both arms begin anew where they send runs another way."""
        flags = self.trip.guard(self._flags())
        if flags is not self._known:
            self._known = flags
            self._follow((flags.fleet_positions, flags.tenants, flags.runs))
        return flags

    def statistics(self) -> tuple[ArmStatistics, ...]:
        """Tell what both arms did; rows and statements are those of the path's store."""
        self.flags()
        return tuple(self._arm(total, self._before[total.path]) for total in self._totals())

    def _follow(self, rollout: object) -> None:
        if rollout == self._rollout:
            return
        self._rollout = rollout
        self._arms = {path: _Arm() for path in Path}
        self._before = {each.path: each for each in self._totals()}
        self.since_us = self._clock.now_us()

    def _arm(self, total: PathStatistics, before: PathStatistics) -> ArmStatistics:
        arm = self._arms[total.path]
        return ArmStatistics(
            path=total.path,
            saves=total.saves - before.saves,
            skipped=total.skipped - before.skipped,
            rows_written=total.rows_written - before.rows_written,
            statements=total.statements - before.statements,
            failures=dict(arm.failures),
            fallbacks=arm.fallbacks,
            persisted_durations=arm.durations[Outcome.PERSISTED].durations(),
            skipped_durations=arm.durations[Outcome.SKIPPED].durations(),
        )
