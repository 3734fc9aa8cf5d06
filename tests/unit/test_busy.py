"""Memories of busy runs: those that are seen once do not fill them, and they keep their bounds."""

import random

import pytest

from statekeep_server.busy import NEW_SHARE, BusyFirst, RecentRuns
from statekeep_server.domain.model import RunKey

A, B, C = (RunKey("tenant", name) for name in "abc")
MANY = [RunKey("tenant", f"run-{number}") for number in range(1_000)]


def memory(*, max_entries: int = 1_000, max_bytes: int = 1_000_000) -> BusyFirst[int]:
    """Make a memory for whole numbers, each of which costs as many bytes as it says."""
    return BusyFirst(
        max_entries=max_entries, max_bytes=max_bytes, size_bytes=lambda _key, value: value
    )


def test_runs_that_are_seen_are_forgotten_in_time() -> None:
    recent = RecentRuns(10)
    assert not any(recent.came_back(run) for run in MANY)
    assert all(recent.came_back(run) for run in MANY[-10:])
    assert not any(recent.came_back(run) for run in MANY[:100])


def test_new_runs_share_an_eighth_and_the_oldest_goes_first() -> None:
    for heads in (memory(max_entries=80), memory(max_bytes=80)):
        gone = sum(heads.put(run, 1, busy=False) for run in MANY)
        assert len(heads) == 80 // NEW_SHARE
        assert gone == len(MANY) - len(heads)
        assert [run for run, _ in heads.items()] == MANY[-len(heads) :]


def test_new_runs_take_nothing_from_busy_ones() -> None:
    heads = memory(max_entries=80)
    for run in MANY[:70]:
        heads.put(run, 1, busy=True)
    for run in MANY[70:]:
        heads.put(run, 1, busy=False)
    assert all(heads.get(run) for run in MANY[:70])
    assert len(heads) == 80


def test_of_busy_runs_the_least_recently_used_goes_first() -> None:
    heads = memory(max_entries=2)
    heads.put(A, 1, busy=True)
    heads.put(B, 1, busy=True)
    heads.get(A)
    assert heads.put(C, 1, busy=True) == 1
    assert (heads.get(A), heads.get(B), heads.get(C)) == (1, None, 1)


@pytest.mark.parametrize("first_busy", [True, False])
def test_a_run_that_was_busy_once_remains_busy(first_busy: bool) -> None:
    heads = memory(max_entries=80)
    heads.put(A, 1, busy=first_busy)
    heads.put(A, 2, busy=not first_busy)
    for run in MANY:
        heads.put(run, 1, busy=False)
    assert heads.get(A) == 2


def test_one_run_has_room_however_little_there_is() -> None:
    heads = memory(max_entries=1)
    heads.put(A, 1, busy=True)
    heads.put(B, 1, busy=False)
    assert (heads.get(A), heads.get(B)) == (None, 1)
    assert memory(max_entries=0).put(A, 1, busy=True) == 0


def test_of_what_does_not_fit_nothing_older_is_known() -> None:
    heads = memory(max_bytes=10)
    heads.put(A, 10, busy=True)
    heads.put(A, 11, busy=True)
    assert heads.get(A) is None
    assert (len(heads), heads.total_bytes) == (0, 0)


def test_it_keeps_its_bounds_whatever_is_done() -> None:
    chance = random.Random(1)
    heads = memory(max_entries=20, max_bytes=100)
    last: dict[RunKey, int] = {}
    for _ in range(20_000):
        run = chance.choice(MANY[:60])
        if chance.random() < 0.2:
            known = heads.get(run) is not None
            assert heads.forget(run) == known
            last.pop(run, None)
        else:
            last[run] = chance.randint(1, 12)
            heads.put(run, last[run], busy=chance.random() < 0.5)
        held = dict(heads.items())
        assert len(held) == len(heads) <= 20
        assert sum(held.values()) == heads.total_bytes <= 100
        assert all(last[run] == value for run, value in held.items())
