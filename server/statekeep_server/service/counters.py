"""What one path counts about its saves and loads. One event loop, so no lock."""

from collections import Counter
from collections.abc import Mapping

from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import Outcome, Path, SaveResult
from statekeep_server.service.answers import PathStatistics
from statekeep_server.service.ports import StoreStatistics
from statekeep_server.telemetry.buckets import Bucketed, Buckets
from statekeep_server.telemetry.names import DURATION_BOUNDS

UNEXPECTED = "UNEXPECTED_ERROR"
"""The reason of an error that is not a StateError: a bug, or a library's surprise."""


def reason_of(error: BaseException) -> str:
    """Name the reason of any error."""
    return error.reason if isinstance(error, StateError) else UNEXPECTED


class PathCounters:
    """Counts since the server started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.routes_right = 0
        self.routes_wrong = 0
        self._outcomes: Counter[str] = Counter()
        self._durations = {each: Buckets(DURATION_BOUNDS) for each in Outcome}
        self._decisions: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._loads = 0

    def saved(self, result: SaveResult, duration_s: float) -> None:
        """Count an acknowledged save."""
        self._outcomes[result.outcome] += 1
        self._durations[result.outcome].record(duration_s)
        self._decisions[result.reason] += 1

    def failed(self, error: BaseException) -> None:
        """Count a save that was not acknowledged."""
        self._failures[reason_of(error)] += 1

    def fell_back(self, error: BaseException) -> None:
        """Count a save that left this path for the standard one."""
        self._fallbacks[reason_of(error)] += 1

    def loaded(self) -> None:
        """Count an answered load."""
        self._loads += 1

    def routed(self, *, right: bool) -> None:
        """Count a route that the cache chose."""
        if right:
            self.routes_right += 1
        else:
            self.routes_wrong += 1

    def durations(self) -> Mapping[Outcome, Bucketed]:
        """Tell how long acknowledged saves took, by their outcome."""
        return {outcome: each.read() for outcome, each in self._durations.items()}

    def statistics(self, store: StoreStatistics) -> PathStatistics:
        """Put the counts together with those of the path's store."""
        return PathStatistics(
            path=self.path,
            saves=self._outcomes.total(),
            persisted=self._outcomes[Outcome.PERSISTED],
            skipped=self._outcomes[Outcome.SKIPPED],
            decisions=dict(self._decisions),
            failures=dict(self._failures),
            fallbacks=dict(self._fallbacks),
            rows_written=store.rows_written,
            statements=store.statements,
            persisted_mean_s=self._mean_s(Outcome.PERSISTED),
            skipped_mean_s=self._mean_s(Outcome.SKIPPED),
            loads=self._loads,
            pool=store.pool,
        )

    def _mean_s(self, outcome: Outcome) -> float:
        return self._durations[outcome].sum / max(1, self._outcomes[outcome])
