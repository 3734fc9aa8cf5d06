"""Histograms: every duration lies in its bucket, and sums of histograms are histograms of sums."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.service.histogram import (
    BUCKETS,
    MAX_BITS,
    SUB_BITS,
    Durations,
    Histogram,
    added,
    bucket_of,
    lower_us,
    quantile_s,
    width_us,
)

MICROSECONDS = st.integers(0, 2**MAX_BITS - 1)
SECONDS = st.lists(st.floats(0.0, 2_000.0), max_size=60)


def histogram(seconds: list[float]) -> Durations:
    made = Histogram()
    for each in seconds:
        made.record(each)
    return made.durations()


@given(MICROSECONDS)
def test_a_duration_lies_in_its_bucket(duration_us: int) -> None:
    lower = lower_us(bucket_of(duration_us))
    assert lower <= duration_us < lower + width_us(lower)
    assert width_us(lower) <= max(1, lower >> SUB_BITS)


def test_buckets_follow_one_another_without_a_gap() -> None:
    bounds = [lower_us(bucket) for bucket in range(BUCKETS)]
    assert bounds[0] == 0
    for lower, following in pairwise(bounds):
        assert lower + width_us(lower) == following
    assert bounds[-1] + width_us(bounds[-1]) == 2**MAX_BITS


def test_what_cannot_be_is_counted_at_the_ends() -> None:
    assert bucket_of(-5) == bucket_of(-5_000_000) == 0
    assert bucket_of(2**MAX_BITS) == bucket_of(2**80) == BUCKETS - 1


@given(SECONDS, SECONDS)
def test_adding_up_is_recording_all(first: list[float], second: list[float]) -> None:
    both, sums = histogram(first + second), added(histogram(first), histogram(second))
    assert both.buckets == sums.buckets
    assert both.count == sums.count == sum(both.buckets.values())
    assert abs(both.sum_s - sums.sum_s) <= 1e-9 * max(1.0, both.sum_s)
    assert abs(both.sum_squares - sums.sum_squares) <= 1e-9 * max(1.0, both.sum_squares)


@given(SECONDS.filter(bool), st.floats(0.01, 1.0))
def test_a_quantile_is_off_by_half_a_bucket_at_most(seconds: list[float], share: float) -> None:
    rank = max(1, math.ceil(share * len(seconds)))
    exact_us = int(sorted(seconds)[rank - 1] * 1_000_000)
    off_us = abs(quantile_s(histogram(seconds), share) * 1_000_000 - exact_us)
    assert off_us <= width_us(lower_us(bucket_of(exact_us))) / 2 + 0.001


def test_nothing_has_no_quantile() -> None:
    assert quantile_s(histogram([]), 0.99) == 0.0
