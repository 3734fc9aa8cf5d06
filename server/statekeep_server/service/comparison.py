"""The A/B report: both arms of a rollout compared, with intervals and a verdict in words.

Pure: counts in, figures and sentences out. Every interval has a confidence of 95 %, and takes the
saves as independent of one another: saves that share a commit are not quite, so that intervals of a
short or bursty window are a little too narrow. The methods:

- mean: by the normal distribution, from 30 durations on; their sums are exact;
- difference of means: of their ratio, by the normal distribution of its logarithm (delta method);
- quantile: order statistics, by the binomial distribution (exact up to 10,000 durations, the normal
  distribution beyond), widened to the edges of the buckets; a side that the durations are too few
  for has no bound;
- rates: Wilson; difference of rates: Newcombe (1998), method 10.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from statekeep_server.service.histogram import Durations, added, at_rank_us, quantile_s, width_us

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

MIN_SAVES = 100
"""Single saves that each arm needs before anything is said about their durations."""

MIN_MEAN = 30
"""Durations from which on their mean is taken as normally distributed."""

EXACT_UP_TO = 10_000
"""Beyond, the normal distribution is as good, and counting every binomial term takes long."""

NO_DURATIONS = Durations(buckets={})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """What one arm did; see `ArmStatistics`."""

    saves: int = 0
    skipped: int = 0
    rows_written: int = 0
    statements: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    fallbacks: int = 0
    persisted_durations: Durations = NO_DURATIONS
    skipped_durations: Durations = NO_DURATIONS

    def __add__(self, other: "ArmCounts") -> "ArmCounts":
        """Add the counts of two servers up."""
        failures = dict(self.failures)
        for reason, count in other.failures.items():
            failures[reason] = failures.get(reason, 0) + count
        return ArmCounts(
            saves=self.saves + other.saves,
            skipped=self.skipped + other.skipped,
            rows_written=self.rows_written + other.rows_written,
            statements=self.statements + other.statements,
            failures=failures,
            fallbacks=self.fallbacks + other.fallbacks,
            persisted_durations=added(self.persisted_durations, other.persisted_durations),
            skipped_durations=added(self.skipped_durations, other.skipped_durations),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval; None is a side without a bound."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmReport:
    """One arm. What cannot be said yet is None.

    Attributes:
        saves: Of the path, batches included, as all that follows up to `statements_per_save`.
        timed: Single saves whose duration is known, as all that follows.
        failure_rate: Of the single saves, acknowledged or not.
    """

    saves: int
    skip_rate: Estimate | None
    rows_per_save: float | None
    statements_per_save: float | None
    timed: int
    mean_s: Estimate | None
    p50_s: Estimate | None
    p95_s: Estimate | None
    p99_s: Estimate | None
    failures: Mapping[str, int]
    failure_rate: Estimate | None
    fallbacks: int
    fallback_rate: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Both arms, and what optimized is against standard.

    Attributes:
        mean_change: Share of standard's mean by which optimized differs; -0.4 is 40 % faster.
        failure_change: Difference of the failure rates.
        rows_change: As `mean_change`, of the rows written a save.
        enough: Whether both arms have enough saves for a verdict.
    """

    standard: ArmReport
    optimized: ArmReport
    mean_change: Estimate | None
    rows_change: float | None
    failure_change: Estimate | None
    enough: bool

    @property
    def verdict(self) -> str:
        """Say it in a sentence."""
        return _verdict(self)


def compare(standard: ArmCounts, optimized: ArmCounts) -> Report:
    """Compare the arms."""
    ours, theirs = _timed(optimized), _timed(standard)
    enough = min(ours.count, theirs.count) >= MIN_SAVES
    reports = _arm(standard), _arm(optimized)
    mean_change = _ratio_of_means(ours, theirs) if enough else None
    rows = [report.rows_per_save for report in reports]
    rows_change = rows[1] / rows[0] - 1 if rows[0] and rows[1] is not None and enough else None
    failure_change = None
    if enough:
        failure_change = newcombe(_failed(optimized), _failed(standard))
    return Report(
        standard=reports[0],
        optimized=reports[1],
        mean_change=mean_change,
        rows_change=rows_change,
        failure_change=failure_change,
        enough=enough,
    )


def _timed(arm: ArmCounts) -> Durations:
    return added(arm.persisted_durations, arm.skipped_durations)


def _failed(arm: ArmCounts) -> tuple[int, int]:
    failures = sum(arm.failures.values())
    return failures, _timed(arm).count + failures


def _arm(arm: ArmCounts) -> ArmReport:
    timed = _timed(arm)
    failures, tried = _failed(arm)
    return ArmReport(
        saves=arm.saves,
        skip_rate=wilson(arm.skipped, arm.saves),
        rows_per_save=arm.rows_written / arm.saves if arm.saves else None,
        statements_per_save=arm.statements / arm.saves if arm.saves else None,
        timed=timed.count,
        mean_s=mean(timed),
        p50_s=quantile(timed, 0.50),
        p95_s=quantile(timed, 0.95),
        p99_s=quantile(timed, 0.99),
        failures=arm.failures,
        failure_rate=wilson(failures, tried),
        fallbacks=arm.fallbacks,
        fallback_rate=wilson(arm.fallbacks, timed.count),
    )


def mean(durations: Durations) -> Estimate | None:
    """Estimate a mean; without an interval where the durations are too few for one."""
    if not durations.count:
        return None
    value = durations.sum_s / durations.count
    if durations.count < MIN_MEAN:
        return Estimate(value, None, None)
    half = Z * math.sqrt(_variance(durations) / durations.count)
    return Estimate(value, max(0.0, value - half), value + half)


def _variance(durations: Durations) -> float:
    count = durations.count
    # Rounding may leave a little less than nothing.
    spread = max(0.0, durations.sum_squares - durations.sum_s**2 / count)
    return spread / (count - 1)


def _ratio_of_means(ours: Durations, theirs: Durations) -> Estimate | None:
    means = [each.sum_s / each.count for each in (ours, theirs)]
    if not all(means):
        return None  # a clock too coarse for what it measured
    ratio = means[0] / means[1]
    squares = sum(
        _variance(each) / each.count / value**2
        for each, value in zip((ours, theirs), means, strict=True)
    )
    factor = math.exp(Z * math.sqrt(squares))
    return Estimate(ratio - 1, ratio / factor - 1, ratio * factor - 1)


def quantile(durations: Durations, share: float) -> Estimate | None:
    """Estimate a quantile by the ranks between which it lies."""
    count = durations.count
    if not count:
        return None
    lower, upper = ranks(count, share)
    low = None if lower is None else at_rank_us(durations, lower) / 1_000_000
    high = None
    if upper is not None:
        bucket_us = at_rank_us(durations, upper)
        high = (bucket_us + width_us(bucket_us)) / 1_000_000
    return Estimate(quantile_s(durations, share), low, high)


def ranks(count: int, share: float) -> tuple[int | None, int | None]:
    """Find the ranks, from 1, of the durations that enclose a quantile with CONFIDENCE.

    The number B of durations below the quantile is binomial. The rank r is a lower bound unless
    B < r, and the rank s an upper bound unless B >= s; each may happen half as often as is left.
    """
    left = (1 - CONFIDENCE) / 2
    if count > EXACT_UP_TO:
        middle = count * share
        half = Z * math.sqrt(middle * (1 - share))
        low, high = math.floor(middle - half), math.ceil(middle + half) + 1
        return (low if low >= 1 else None), (high if high <= count else None)
    logs = (math.log(share), math.log1p(-share))
    lower, upper = None, None
    below = 0.0  # P(B < rank)
    for rank in range(1, count + 1):
        hits = rank - 1
        below += math.exp(
            math.lgamma(count + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(count - hits + 1)
            + hits * logs[0]
            + (count - hits) * logs[1]
        )
        if below <= left:
            lower = rank
        if 1 - below <= left:
            upper = rank
            break
    return lower, upper


def wilson(hits: int, tried: int) -> Estimate | None:
    """Estimate a rate."""
    if not tried:
        return None
    rate = hits / tried
    middle = (rate + Z**2 / (2 * tried)) / (1 + Z**2 / tried)
    half = Z / (1 + Z**2 / tried) * math.sqrt(rate * (1 - rate) / tried + Z**2 / (4 * tried**2))
    # Rounding must not put the rate itself outside.
    return Estimate(rate, min(rate, max(0.0, middle - half)), max(rate, min(1.0, middle + half)))


def newcombe(ours: tuple[int, int], theirs: tuple[int, int]) -> Estimate | None:
    """Estimate the difference of two rates, each given as hits and tries."""
    first, second = wilson(*ours), wilson(*theirs)
    if first is None or second is None:
        return None
    (a, a_low, a_high), (b, b_low, b_high) = (
        (each.value, each.low or 0.0, each.high or 0.0) for each in (first, second)
    )
    difference = a - b
    return Estimate(
        difference,
        difference - math.hypot(a - a_low, b_high - b),
        difference + math.hypot(a_high - a, b - b_low),
    )


def total(arms: Iterable[ArmCounts]) -> ArmCounts:
    """Add the counts of several servers up."""
    counted = ArmCounts()
    for arm in arms:
        counted += arm
    return counted


def _verdict(report: Report) -> str:
    standard, optimized = report.standard, report.optimized
    if not report.enough or report.failure_change is None:
        return (
            f"Not enough saves yet: optimized has {optimized.timed:,}, standard "
            f"{standard.timed:,}, and each needs {MIN_SAVES:,} single saves since the rollout "
            "changed."
        )
    parts = [_on_the_mean(report.mean_change), _on_the_rows(report.rows_change)]
    errors = _on_errors(report, report.failure_change)
    return f"Optimized {' and '.join(part for part in parts if part)}; {errors}."


def _on_the_mean(change: Estimate | None) -> str:
    if change is None or change.low is None or change.high is None:
        return "cannot be compared on the mean"
    if change.low <= 0 <= change.high:
        return (
            "shows no difference on the mean (95 % interval "
            f"{_percent(-change.low)} faster to {_percent(change.high)} slower)"
        )
    if change.high < 0:
        return (
            f"is {_percent(-change.value)} faster on the mean "
            f"(95 % interval {_number(-change.high)} to {_percent(-change.low)})"
        )
    return (
        f"is {_percent(change.value)} slower on the mean "
        f"(95 % interval {_number(change.low)} to {_percent(change.high)})"
    )


def _on_the_rows(change: float | None) -> str:
    if change is None:
        return ""
    if abs(change) < 0.005:
        return "wrote as many rows a save"
    return f"wrote {_percent(abs(change))} {'fewer' if change < 0 else 'more'} rows a save"


def _on_errors(report: Report, change: Estimate) -> str:
    low, high = change.low or 0.0, change.high or 0.0
    if low <= 0 <= high:
        errors = "errors alike"
    else:
        rates = [
            _percent(arm.failure_rate.value if arm.failure_rate else 0.0, digits=2)
            for arm in (report.optimized, report.standard)
        ]
        word = "more" if low > 0 else "fewer"
        errors = f"{word} errors ({rates[0]} of its saves against {rates[1]})"
    fallbacks = report.optimized.fallbacks
    if not fallbacks:
        return f"{errors}, no fallbacks"
    share = report.optimized.fallback_rate
    rate = _percent(share.value if share else 0.0, digits=2)
    return f"{errors}, {fallbacks:,} fallbacks ({rate} of its saves)"


def _percent(share: float, *, digits: int = 0) -> str:
    return f"{_number(share, digits=digits)} %"


def _number(share: float, *, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}"
