"""The statistics of a benchmark."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measurements import latency_values, median, percentile, rounded

NUMBERS = st.lists(st.integers(0, 10**9), min_size=1)


@given(NUMBERS)
def test_half_of_the_values_lie_on_each_side_of_the_median(values: list[int]) -> None:
    middle = median(values)
    assert sum(value <= middle for value in values) >= len(values) / 2
    assert sum(value >= middle for value in values) >= len(values) / 2


@given(NUMBERS, st.floats(0.01, 1.0))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[int], share: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6
    assert sum(value < found for value in ordered) < share * len(ordered) + 1e-6


def test_latencies_become_mean_median_and_p99() -> None:
    values = latency_values([*range(1, 100), 1_000])
    assert values == {"mean_us": pytest.approx(59.5), "p50_us": 50, "p99_us": 99}
    assert latency_values([]) == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, 0), (0.123456, 0.1235), (12.3456, 12.35), (123_456.7, 123_457), (float("nan"), 0)],
)
def test_numbers_keep_four_digits(value: float, shown: float) -> None:
    assert rounded(value) == shown
