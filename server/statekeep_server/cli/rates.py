"""What happened between two looks at a server, from the counts of both."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from statekeep_server.service.kpis import Kpis, kpis

if TYPE_CHECKING:  # the client brings gRPC, which `--help` does not need
    from statekeep import PathStats, ServerStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Between two looks; pools and switches are those of the second.

    Attributes:
        kpis: Of the saves in between.
    """

    seconds: float
    saves_per_s: float
    rows_per_s: float
    statements_per_s: float
    loads_per_s: float
    failures_per_s: float
    kpis: Kpis
    circuit_open: bool
    tripped: bool


def rates(before: "ServerStats", now: "ServerStats", seconds: float) -> Rates | None:
    """Take the difference; None where the server began to count anew in between."""
    earlier = {path.path: path for path in before.paths}
    paths = [_since(earlier[path.path], path) for path in now.paths if path.path in earlier]
    cache = replace(
        now.cache,
        hits=now.cache.hits - before.cache.hits,
        misses=now.cache.misses - before.cache.misses,
    )
    if (
        before.started_at != now.started_at
        or len(before.workers) != len(now.workers)
        or any(path.saves < 0 for path in paths)
    ):
        return None  # a server or one of its workers began anew, or did not answer once

    def per_s(count: int) -> float:
        return count / max(seconds, 1e-9)

    return Rates(
        seconds=seconds,
        saves_per_s=per_s(sum(path.saves for path in paths)),
        rows_per_s=per_s(sum(path.rows_written for path in paths)),
        statements_per_s=per_s(sum(path.statements for path in paths)),
        loads_per_s=per_s(sum(path.loads for path in paths)),
        failures_per_s=per_s(sum(sum(path.failures.values()) for path in paths)),
        kpis=kpis(paths, cache, now.pools),
        circuit_open=now.circuit_open,
        tripped=now.tripped,
    )


def _since(before: "PathStats", now: "PathStats") -> "PathStats":
    persisted = now.persisted - before.persisted
    skipped = now.skipped - before.skipped
    saved_s = now.persisted * now.persisted_mean_s - before.persisted * before.persisted_mean_s
    skipped_s = now.skipped * now.skipped_mean_s - before.skipped * before.skipped_mean_s
    return replace(
        now,
        saves=now.saves - before.saves,
        persisted=persisted,
        skipped=skipped,
        failures=_more(before.failures, now.failures),
        fallbacks=_more(before.fallbacks, now.fallbacks),
        rows_written=now.rows_written - before.rows_written,
        statements=now.statements - before.statements,
        persisted_mean_s=saved_s / persisted if persisted else 0.0,
        skipped_mean_s=skipped_s / skipped if skipped else 0.0,
        loads=now.loads - before.loads,
    )


def _more(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {reason: count - before.get(reason, 0) for reason, count in now.items()}
