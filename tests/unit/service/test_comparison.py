"""The A/B report: known examples, tiny counts, and what the intervals promise."""

import random
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.service.comparison import (
    EXACT_UP_TO,
    MIN_SAVES,
    ArmCounts,
    Report,
    compare,
    mean,
    newcombe,
    quantile,
    ranks,
    total,
    wilson,
)
from statekeep_server.service.histogram import Durations, Histogram

NOTHING = Durations(buckets={})


def durations(seconds: list[float]) -> Durations:
    made = Histogram()
    for each in seconds:
        made.record(each)
    return made.durations()


def arm(milliseconds: list[float], **counts: Any) -> ArmCounts:
    made: dict[str, Any] = {
        "saves": len(milliseconds),
        "rows_written": 4 * len(milliseconds),
        **counts,
    }
    return ArmCounts(persisted_durations=durations([each / 1_000 for each in milliseconds]), **made)


def around(middle: float, count: int, *, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(0.8 * middle, 1.2 * middle) for _ in range(count)]


# The methods, against known values.


def test_wilson_as_in_the_books() -> None:
    none, some = wilson(0, 10), wilson(5, 10)
    assert none is not None
    assert some is not None
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.2775, abs=1e-4)
    assert some.low == pytest.approx(0.2366, abs=1e-4)
    assert some.high == pytest.approx(0.7634, abs=1e-4)
    assert wilson(0, 0) is None


def test_newcombe_as_in_his_paper() -> None:
    """Newcombe (1998), table II, example a, method 10: 56/70 against 48/80."""
    found = newcombe((56, 70), (48, 80))
    assert found is not None
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=1e-4)
    assert found.high == pytest.approx(0.3339, abs=1e-4)
    assert newcombe((0, 0), (1, 2)) is None
    assert newcombe((1, 2), (0, 0)) is None


@pytest.mark.parametrize(
    ("count", "lower", "upper"), [(5, None, None), (6, 1, 6), (10, 2, 9), (100, 40, 61)]
)
def test_the_ranks_of_a_median_as_in_tables(
    count: int, lower: int | None, upper: int | None
) -> None:
    assert ranks(count, 0.5) == (lower, upper)


def test_a_high_quantile_of_few_durations_has_no_upper_bound() -> None:
    assert ranks(100, 0.99) == (97, None)
    assert ranks(1, 0.5) == (None, None)
    found = quantile(durations([0.001] * 100), 0.99)
    assert found is not None
    assert found.low is not None
    assert found.high is None
    assert quantile(NOTHING, 0.5) is None


@given(st.integers(1, 400), st.sampled_from([0.5, 0.95, 0.99]))
def test_ranks_enclose_the_quantile_as_often_as_they_say(count: int, share: float) -> None:
    lower, upper = ranks(count, share)
    terms = [comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    if lower is not None:
        assert sum(terms[:lower]) <= 0.025 + 1e-9
    if upper is not None:
        assert sum(terms[upper:]) <= 0.025 + 1e-9
    if lower is not None and upper is not None:
        assert lower <= share * count + 1
        assert upper >= share * count


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_many_durations_take_the_normal_distribution_to_nearly_the_same_ranks(share: float) -> None:
    exact, approximate = ranks(EXACT_UP_TO, share), ranks(EXACT_UP_TO + 1, share)
    for one, other in zip(exact, approximate, strict=True):
        assert one is not None
        assert other is not None
        assert abs(one - other) <= 3
    assert ranks(10_000_000, 1e-9)[0] is None
    assert ranks(10_000_000, 1 - 1e-9)[1] is None


def test_a_mean_has_an_interval_from_thirty_on() -> None:
    assert mean(NOTHING) is None
    few = mean(durations([0.001] * 29))
    assert few is not None
    assert (few.low, few.high) == (None, None)
    found = mean(durations([0.001, 0.003] * 50))
    assert found is not None
    assert found.value == pytest.approx(0.002)
    assert found.low == pytest.approx(0.002 - 1.96 * 0.001005 / 10, rel=1e-3)
    assert found.high == pytest.approx(0.002 + 1.96 * 0.001005 / 10, rel=1e-3)


def test_equal_durations_leave_no_doubt_and_no_rounding() -> None:
    found = mean(durations([0.1] * 1_000))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


# The verdict.


def verdict(standard: ArmCounts, optimized: ArmCounts) -> str:
    return compare(standard, optimized).verdict


@pytest.mark.parametrize(
    ("standard", "optimized"), [(0, 0), (MIN_SAVES, MIN_SAVES - 1), (1, 5_000)]
)
def test_too_few_saves_have_no_verdict(standard: int, optimized: int) -> None:
    report = compare(arm(around(5, standard)), arm(around(5, optimized)))
    assert report.verdict == (
        f"Not enough saves yet: optimized has {optimized:,}, standard {standard:,}, and each needs "
        "100 single saves since the rollout changed."
    )
    assert (report.mean_change, report.rows_change, report.failure_change) == (None, None, None)


def test_faster_and_fewer_rows() -> None:
    optimized = arm(around(6, 1_000), rows_written=2_400, skipped=400)
    found = verdict(arm(around(10, 1_000)), optimized)
    assert found.startswith("Optimized is 40 % faster on the mean (95 % interval 39 to 41 %) and ")
    assert found.endswith("wrote 40 % fewer rows a save; errors alike, no fallbacks.")


def test_slower_and_more_rows() -> None:
    optimized = arm(around(20, 1_000), rows_written=5_000)
    found = verdict(arm(around(10, 1_000)), optimized)
    assert "is 100 % slower on the mean (95 % interval 98 to 102 %)" in found
    assert "wrote 25 % more rows a save" in found


def test_no_difference_is_not_called_one() -> None:
    found = verdict(arm(around(10, 200, seed=2)), arm(around(10, 200, seed=3)))
    assert "shows no difference on the mean (95 % interval " in found
    assert "wrote as many rows a save" in found


def test_errors_and_fallbacks_are_told() -> None:
    standard, bad = (
        arm(around(5, 500)),
        arm(around(5, 500), failures={"INTERNAL": 40}, fallbacks=25),
    )
    assert "; more errors (7.41 % of its saves against 0.00 %), 25 fallbacks (5.00 %" in verdict(
        standard, bad
    )
    assert "; fewer errors (0.00 % of its saves against 7.41 %), no fallbacks" in verdict(
        bad, standard
    )


def test_what_took_no_time_is_not_compared() -> None:
    nothing = arm([0.0] * 200, rows_written=0)
    found = verdict(nothing, arm(around(5, 200)))
    assert found == "Optimized cannot be compared on the mean; errors alike, no fallbacks."


def test_each_figure_of_an_arm() -> None:
    counted = ArmCounts(
        saves=10,
        skipped=4,
        rows_written=24,
        statements=30,
        failures={"INTERNAL": 2},
        fallbacks=1,
        persisted_durations=durations([0.010] * 6),
        skipped_durations=durations([0.002] * 2),
    )
    report = compare(ArmCounts(), counted)
    found = report.optimized
    assert (found.saves, found.timed, found.rows_per_save, found.statements_per_save) == (
        10,
        8,
        2.4,
        3,
    )
    assert found.skip_rate is not None
    assert found.skip_rate.value == 0.4
    assert found.mean_s is not None
    assert found.mean_s.value == pytest.approx(0.008)
    assert found.failure_rate is not None
    assert found.failure_rate.value == 0.2
    assert found.fallback_rate is not None
    assert found.fallback_rate.value == 0.125
    empty = report.standard
    assert (empty.skip_rate, empty.mean_s, empty.p50_s, empty.rows_per_save) == (None,) * 4
    assert (empty.statements_per_save, empty.failure_rate, empty.fallback_rate) == (None,) * 3


counts = st.builds(
    ArmCounts,
    saves=st.integers(0, 50),
    skipped=st.just(0),
    rows_written=st.integers(0, 300),
    statements=st.integers(0, 300),
    failures=st.dictionaries(st.sampled_from(["INTERNAL", "OVERLOADED"]), st.integers(1, 9)),
    fallbacks=st.integers(0, 3),
    persisted_durations=st.lists(st.floats(0.0, 10.0), max_size=150).map(durations),
    skipped_durations=st.lists(st.floats(0.0, 10.0), max_size=150).map(durations),
)


@given(counts, counts)
def test_any_counts_have_a_report_whose_intervals_hold_their_figures(
    standard: ArmCounts, optimized: ArmCounts
) -> None:
    # A save that fell back has a duration.
    if optimized.fallbacks > optimized.persisted_durations.count:
        optimized = total([optimized, arm([1.0] * optimized.fallbacks)])
    if standard.fallbacks > standard.persisted_durations.count:
        standard = total([standard, arm([1.0] * standard.fallbacks)])
    report: Report = compare(standard, optimized)
    assert report.verdict.endswith(".")
    for each in (report.standard, report.optimized):
        for found in (each.mean_s, each.p50_s, each.p99_s, each.failure_rate, each.fallback_rate):
            if found is not None:
                assert found.low is None or found.low <= found.value + 1e-9
                assert found.high is None or found.value <= found.high + 1e-9
    if report.mean_change is not None:
        swapped = compare(optimized, standard).mean_change
        assert swapped is not None
        assert (1 + swapped.value) * (1 + report.mean_change.value) == pytest.approx(1)


def test_servers_are_added_up() -> None:
    found = total([arm([1.0, 2.0], failures={"INTERNAL": 1}), arm([3.0], failures={"INTERNAL": 2})])
    assert (found.saves, found.rows_written, found.failures) == (3, 12, {"INTERNAL": 3})
    assert found.persisted_durations.count == 3
    assert total([]) == ArmCounts()
