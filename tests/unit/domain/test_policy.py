"""The skip decision, case by case."""

from typing import Any

import pytest

from statekeep_server.domain.model import CheckpointType, Outcome, Reason
from statekeep_server.domain.policy import (
    Decision,
    SkipRules,
    decide,
    is_standing,
    persist_always,
)
from tests.support.saves import NOW_US, command, head_of, prepared

RULES = SkipRules()
STATE = {"a": 1}


def reason(
    head: dict[str, Any] | None = None,
    *,
    rules: SkipRules | None = RULES,
    skips_in_a_row: int = 0,
    age_us: int = 0,
    **save: Any,
) -> Reason:
    """Decide a save of the state that the head holds; `head` are its changes."""
    decision = decide(
        prepared(**({"state": STATE} | save)),
        head_of(prepared(STATE), **(head or {})),
        now_us=NOW_US + age_us,
        rules=rules,
        skips_in_a_row=skips_in_a_row,
    )
    skipped = decision.outcome is Outcome.SKIPPED
    assert skipped == (decision.reason is Reason.UNCHANGED)
    return decision.reason


def test_an_unchanged_automatic_save_is_skipped() -> None:
    assert reason() is Reason.UNCHANGED
    assert reason(checkpoint_type="INTERMEDIATE") is Reason.UNCHANGED


def test_a_changed_save_is_persisted() -> None:
    assert reason(state={"a": 2}) is Reason.CHANGED
    assert reason(agent_phase="next") is Reason.CHANGED


@pytest.mark.parametrize(
    "checkpoint_type", sorted(set(CheckpointType) - {CheckpointType.AUTO, "INTERMEDIATE"})
)
def test_types_that_are_not_automatic_are_persisted_though_unchanged(checkpoint_type: str) -> None:
    """The skip check must not run before the check of the type."""
    assert reason(checkpoint_type=checkpoint_type) is Reason.CHECKPOINT_TYPE
    assert persist_always(command(STATE, checkpoint_type=checkpoint_type)) is not None


def test_a_recovery_point_is_persisted_though_unchanged() -> None:
    assert reason(is_recovery_point=True) is Reason.RECOVERY_POINT
    assert reason(is_recovery_point=True, checkpoint_type="MANUAL") is Reason.RECOVERY_POINT


@pytest.mark.parametrize("checkpoint_type", ["UNKNOWN_99", "auto", "AUTO2", "x"])
def test_an_unknown_type_is_persisted_and_is_no_error(checkpoint_type: str) -> None:
    assert reason(checkpoint_type=checkpoint_type) is Reason.UNKNOWN_CHECKPOINT_TYPE


def test_the_standard_path_persists_everything() -> None:
    assert reason(rules=None) is Reason.STANDARD_PATH
    assert reason(rules=None, checkpoint_type="MANUAL") is Reason.CHECKPOINT_TYPE


def test_a_first_save_is_persisted() -> None:
    decision = decide(prepared(STATE), None, now_us=NOW_US, rules=RULES)
    assert decision == Decision(Outcome.PERSISTED, Reason.FIRST_SAVE)
    assert reason({"version": 0}) is Reason.FIRST_SAVE


@pytest.mark.parametrize(
    "gone",
    [
        {"snapshot_id": None},
        {"comparison_hash": None},
        {"state_sha256": None},
        {"expires_at_us": NOW_US},
        {"expires_at_us": NOW_US - 1},
    ],
)
def test_nothing_is_skipped_onto_a_snapshot_that_is_gone(gone: dict[str, Any]) -> None:
    assert reason(gone) is Reason.HEAD_GONE


def test_a_head_must_stand_as_long_as_the_save_would() -> None:
    soon, later = NOW_US + 10, NOW_US + 20
    assert reason({"expires_at_us": soon}) is Reason.HEAD_EXPIRES_SOONER
    assert reason({"expires_at_us": soon}, expires_at_us=later) is Reason.HEAD_EXPIRES_SOONER
    assert reason({"expires_at_us": soon}, expires_at_us=soon) is Reason.UNCHANGED
    assert reason({"expires_at_us": later}, expires_at_us=soon) is Reason.UNCHANGED
    assert reason({"expires_at_us": None}, expires_at_us=soon) is Reason.UNCHANGED


def test_a_save_that_would_have_expired_is_not_skipped() -> None:
    """The read barrier must not answer what the lock refuses."""
    assert reason(expires_at_us=NOW_US) is not Reason.UNCHANGED
    assert reason(expires_at_us=NOW_US - 1) is not Reason.UNCHANGED
    assert reason(expires_at_us=NOW_US + 1) is Reason.UNCHANGED


def test_the_drift_of_ignored_fields_is_bounded_in_time() -> None:
    rules = SkipRules(max_skip_age_us=1_000)
    assert reason(rules=rules, age_us=999) is Reason.UNCHANGED
    assert reason(rules=rules, age_us=1_000) is Reason.MAX_SKIP_AGE
    assert reason(rules=SkipRules(max_skip_age_us=0)) is Reason.MAX_SKIP_AGE


def test_a_head_from_the_future_is_not_leaned_on() -> None:
    """After the clock was set back, nobody knows how old the head is."""
    assert reason(age_us=-1) is Reason.MAX_SKIP_AGE


def test_the_drift_of_ignored_fields_is_bounded_in_number() -> None:
    rules = SkipRules(max_skips=3)
    assert reason(rules=rules, skips_in_a_row=2) is Reason.UNCHANGED
    assert reason(rules=rules, skips_in_a_row=3) is Reason.MAX_SKIPS
    assert reason(rules=SkipRules(max_skips=0)) is Reason.MAX_SKIPS


def test_a_head_stands_until_its_snapshot_is_gone() -> None:
    save = prepared(STATE)
    assert is_standing(head_of(save), NOW_US)
    assert is_standing(head_of(save, expires_at_us=NOW_US + 1), NOW_US)
    assert not is_standing(head_of(save, expires_at_us=NOW_US), NOW_US)
    assert not is_standing(head_of(save, snapshot_id=None), NOW_US)
    assert not is_standing(None, NOW_US)
