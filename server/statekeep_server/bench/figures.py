"""The figures of a replay: what was counted and measured, and how two paths compare."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from statekeep_server.bench.oracle import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One stream replayed on one path.

    Attributes:
        skipped_by_reason, persisted_by_reason: Saves by the server's reason.
        rows_written, statements: What the server counted meanwhile.
        mean_ms, p99_ms: Of all saves, as the client saw them.
        saved_mean_ms, saved_p99_ms: Of persisted ones; None if there were none.
        skipped_mean_ms, skipped_p99_ms: Of skipped ones; None if there were none.
        fallbacks: Saves that another path served in the end.
        oracle_differences: Answers that the oracle does not agree with.
        lost: Runs whose newest state is not the last one that had to be kept.
    """

    saves: int
    persisted: int
    skipped: int
    skipped_by_reason: Mapping[str, int]
    persisted_by_reason: Mapping[str, int]
    rows_written: int
    statements: int
    mean_ms: float
    p99_ms: float
    saved_mean_ms: float | None
    saved_p99_ms: float | None
    skipped_mean_ms: float | None
    skipped_p99_ms: float | None
    fallbacks: int
    oracle_differences: int
    lost: int

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DatabaseWork:
    """What a server's database did: rows written and statements sent."""

    rows_written: int
    statements: int


def make_figures(
    answers: Sequence[Answer],
    *,
    path: str,
    work: DatabaseWork,
    oracle_differences: int,
    lost: int,
) -> Figures:
    """Count and measure the answers of one stream on one path."""
    saved = [answer for answer in answers if answer.outcome == "PERSISTED"]
    skipped = [answer for answer in answers if answer.outcome == "SKIPPED"]
    return Figures(
        saves=len(answers),
        persisted=len(saved),
        skipped=len(skipped),
        skipped_by_reason=_by_reason(skipped),
        persisted_by_reason=_by_reason(saved),
        rows_written=work.rows_written,
        statements=work.statements,
        mean_ms=mean_ms(answers) or 0.0,
        p99_ms=p99_ms(answers) or 0.0,
        saved_mean_ms=mean_ms(saved),
        saved_p99_ms=p99_ms(saved),
        skipped_mean_ms=mean_ms(skipped),
        skipped_p99_ms=p99_ms(skipped),
        fallbacks=sum(answer.path != path for answer in answers),
        oracle_differences=oracle_differences,
        lost=lost,
    )


def compare(standard: Figures, optimized: Figures) -> dict[str, float]:
    """How much less the optimized path does and takes, in percent of the standard one."""
    return {
        "snapshots_fewer_percent": fewer_percent(standard.persisted, optimized.persisted),
        "rows_fewer_percent": fewer_percent(standard.rows_written, optimized.rows_written),
        "statements_fewer_percent": fewer_percent(standard.statements, optimized.statements),
        "mean_duration_lower_percent": fewer_percent(standard.mean_ms, optimized.mean_ms),
    }


def fewer_percent(before: float, after: float) -> float:
    """How much smaller a number became, in percent; 0 if it was nothing."""
    return 100 * (before - after) / before if before else 0.0


def mean_ms(answers: Sequence[Answer]) -> float | None:
    """The mean duration in milliseconds."""
    if not answers:
        return None
    return 1_000 * math.fsum(answer.duration_s for answer in answers) / len(answers)


def p99_ms(answers: Sequence[Answer]) -> float | None:
    """The duration in milliseconds that 99 of 100 answers do not exceed (nearest rank)."""
    if not answers:
        return None
    ordered = sorted(answer.duration_s for answer in answers)
    return 1_000 * ordered[math.ceil(0.99 * len(ordered)) - 1]


def _by_reason(answers: Sequence[Answer]) -> dict[str, int]:
    return dict(sorted(Counter(answer.reason for answer in answers).items()))
