"""Figures: counted and measured as a person would."""

from dataclasses import replace

import pytest

from statekeep_server.bench.campaign import Campaign
from statekeep_server.bench.figures import (
    DatabaseWork,
    Figures,
    compare,
    fewer_percent,
    make_figures,
    mean_ms,
    p99_ms,
)
from statekeep_server.bench.oracle import Answer, Difference


def answer(duration_ms: float, outcome: str = "PERSISTED", reason: str = "CHANGED") -> Answer:
    return Answer(
        outcome=outcome,
        reason=reason,
        path="OPTIMIZED",
        snapshot_id="s",
        version=1,
        state_sha256=b"",
        sent_s=100.0,
        answered_s=100.0 + duration_ms / 1_000,
    )


ANSWERS = [
    answer(2),
    answer(6, reason="FIRST_SAVE"),
    answer(1, "SKIPPED", "UNCHANGED"),
    replace(answer(3), path="STANDARD"),
]


def figures(answers: list[Answer] = ANSWERS) -> Figures:
    work = DatabaseWork(rows_written=12, statements=30)
    return make_figures(answers, path="OPTIMIZED", work=work, oracle_differences=0, lost=0)


def test_saves_are_counted_by_outcome_and_reason() -> None:
    found = figures()
    assert (found.saves, found.persisted, found.skipped) == (4, 3, 1)
    assert found.persisted_by_reason == {"CHANGED": 2, "FIRST_SAVE": 1}
    assert found.skipped_by_reason == {"UNCHANGED": 1}
    assert (found.rows_written, found.statements, found.fallbacks) == (12, 30, 1)


def test_durations_are_told_apart() -> None:
    found = figures()
    assert found.mean_ms == pytest.approx(3)
    assert found.saved_mean_ms == pytest.approx(11 / 3)
    assert found.skipped_mean_ms == pytest.approx(1)
    assert found.p99_ms == pytest.approx(6)


def test_what_never_happened_has_no_duration() -> None:
    found = figures([answer(2)])
    assert (found.skipped_mean_ms, found.skipped_p99_ms) == (None, None)
    assert (mean_ms([]), p99_ms([])) == (None, None)


def test_the_99th_of_100_is_the_last_but_one() -> None:
    assert p99_ms([answer(n) for n in range(1, 101)]) == pytest.approx(99)
    assert p99_ms([answer(n) for n in range(1, 102)]) == pytest.approx(100)


def test_two_paths_are_compared_in_percent() -> None:
    standard = figures()
    optimized = replace(
        standard, persisted=2, rows_written=6, statements=33, mean_ms=standard.mean_ms / 2
    )
    less = compare(standard, optimized)
    assert less["snapshots_fewer_percent"] == pytest.approx(100 / 3)
    assert less["rows_fewer_percent"] == pytest.approx(50)
    assert less["statements_fewer_percent"] == pytest.approx(-10)
    assert less["mean_duration_lower_percent"] == pytest.approx(50)
    assert fewer_percent(0, 3) == 0


def test_a_campaign_is_good_without_a_fault_and_says_everything() -> None:
    good = Campaign(1, 20, {"around": {"standard": figures(), "optimized": figures()}}, (), ())
    assert good.good
    assert good.to_json()["streams"]["around"]["optimized"]["saves"] == 4
    assert good.to_json()["comparison"]["around"]["rows_fewer_percent"] == 0
    assert good.to_json()["lost"] == 0
    assert not replace(good, lost_runs=("r",)).good
    assert not replace(good, differences=(Difference("r", 1, "wrong"),)).good


def test_one_path_alone_is_not_compared() -> None:
    assert Campaign(1, 20, {"around": {"standard": figures()}}, (), ()).comparison() == {}
