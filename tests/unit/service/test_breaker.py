"""The breaker opens after failures in a row, rests, probes, and closes on success."""

import pytest

from statekeep_server.domain.errors import CircuitOpen
from statekeep_server.service.breaker import Breaker
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker(clock, threshold=3, first_rest_s=1.0, longest_rest_s=4.0)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.admit()
        breaker.failed()


def test_it_admits_until_the_threshold(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.admit()
    assert not breaker.is_open


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert breaker.is_open
    with pytest.raises(CircuitOpen):
        breaker.admit()


def test_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert not breaker.is_open


def test_one_save_probes_after_the_rest(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, 3)
    clock.advance(1.0)
    breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    breaker.succeeded()
    breaker.admit()
    assert not breaker.is_open


def test_a_failed_probe_doubles_the_rest_up_to_a_bound(
    breaker: Breaker, clock: ManualClock
) -> None:
    fail(breaker, 3)
    for rest_s in (1.0, 2.0, 4.0, 4.0):
        clock.advance(rest_s - 0.5)
        with pytest.raises(CircuitOpen):
            breaker.admit()
        clock.advance(0.5)
        breaker.admit()
        breaker.failed()


def test_a_released_probe_leaves_the_place_to_another(breaker: Breaker, clock: ManualClock) -> None:
    fail(breaker, 3)
    clock.advance(1.0)
    breaker.admit()
    breaker.released()
    breaker.admit()
    breaker.succeeded()
    assert not breaker.is_open


def test_releasing_a_closed_circuit_changes_nothing(breaker: Breaker) -> None:
    breaker.admit()
    breaker.released()
    assert not breaker.is_open
