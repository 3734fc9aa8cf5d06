"""The locked save: the order of its checks, what it writes and what it answers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from statekeep_server.domain.audit import GENESIS, link, verify_chain
from statekeep_server.domain.errors import (
    InvalidField,
    RequestIdReused,
    StaleWriter,
    VersionConflict,
)
from statekeep_server.domain.model import Head, Outcome, PreparedSave, Reason
from statekeep_server.domain.policy import SkipRules
from statekeep_server.domain.transition import (
    RecordedResult,
    Transition,
    answer_skip,
    apply_delete,
    apply_save,
)
from tests.support.saves import NOW_US, RUN, head_of, prepared

STATE = {"goal": "x", "step": 1}
A, B = {"goal": "a"}, {"goal": "b"}


def applied(
    save: PreparedSave,
    head: Head | None = None,
    *,
    earlier: RecordedResult | None = None,
    now_us: int = NOW_US,
    rules: SkipRules | None = SkipRules(),  # noqa: B008  frozen
    skips_in_a_row: int = 0,
    snapshot_id: str = "snapshot-new",
) -> Transition:
    return apply_save(
        save,
        head=head,
        earlier=earlier,
        now_us=now_us,
        rules=rules,
        skips_in_a_row=skips_in_a_row,
        snapshot_id=snapshot_id,
    )


def moved(transition: Transition) -> Head:
    assert transition.written
    return transition.written.head


# Persisting.


def test_a_first_save_begins_everything() -> None:
    options: dict[str, Any] = {
        "thread_id": "t",
        "user_id": "u",
        "agent_phase": "p",
        "execution_context": (("k", "v"),),
        "is_recovery_point": True,
        "expires_at_us": NOW_US + 1,
        "writer_sequence": 7,
        "content_type": "application/json; charset=utf-8",
    }
    save = prepared(STATE, **options)
    transition = applied(save)
    result, written = transition.result, transition.written
    assert written
    assert transition.record_result
    assert transition.raised_head is None
    assert (result.outcome, result.reason) == (Outcome.PERSISTED, Reason.RECOVERY_POINT)
    assert (result.snapshot_id, result.version) == ("snapshot-new", 1)
    assert result.changed_fields == ("goal", "step")
    assert not result.changed_fields_truncated
    assert not result.replayed
    assert result.request_id == "request-1"
    snapshot, head, audit = written.snapshot, written.head, written.audit
    for name, value in options.items():
        if name != "writer_sequence":
            assert getattr(snapshot, name) == value
    assert head.writer_sequence == 7
    assert head.expires_at_us == NOW_US + 1
    assert head.field_digests == save.field_digests
    assert snapshot.state == save.command.state
    assert snapshot.state_bytes == len(save.command.state)
    for made in (snapshot, head, audit, result):
        assert made.state_sha256 == save.state_sha256
        assert made.comparison_hash == save.comparison_hash
        assert made.snapshot_id == "snapshot-new"
        assert made.version == 1
    assert snapshot.key == head.key == audit.key == RUN
    assert snapshot.persisted_at_us == head.persisted_at_us == audit.recorded_at_us == NOW_US
    assert audit.hash == link(GENESIS, audit)
    assert audit.kind == "SAVE"
    assert (audit.thread_id, audit.user_id, audit.request_id) == ("t", "u", "request-1")
    assert audit.checkpoint_type == "AUTO"
    assert audit.is_recovery_point
    assert head.audit_hash == audit.hash
    assert verify_chain([audit]) is None


def test_a_next_save_takes_the_next_version_and_link() -> None:
    first = applied(prepared(A))
    second = applied(prepared(B), moved(first))
    assert second.result.version == 2
    assert second.result.reason is Reason.CHANGED
    assert second.result.changed_fields == ("goal",)
    assert first.written
    assert second.written
    assert verify_chain([first.written.audit, second.written.audit]) is None


def test_the_third_state_equals_an_old_one_and_is_stored() -> None:
    """A, B, A: what counts is the head, not anything seen before."""
    first = applied(prepared(A))
    second = applied(prepared(B), moved(first))
    third = applied(prepared(A), moved(second))
    assert third.result.outcome is Outcome.PERSISTED
    assert third.result.version == 3


def test_the_standard_path_persists_and_names_the_changes() -> None:
    transition = applied(prepared(A), head_of(prepared(A)), rules=None)
    assert transition.result.reason is Reason.STANDARD_PATH
    assert transition.result.changed_fields == ()


def test_a_manual_save_and_a_recovery_point_are_persisted_though_unchanged() -> None:
    head = head_of(prepared(A))
    for options in ({"checkpoint_type": "MANUAL"}, {"is_recovery_point": True}):
        assert applied(prepared(A, **options), head).result.outcome is Outcome.PERSISTED


def test_an_unknown_checkpoint_type_is_persisted() -> None:
    save = prepared(A, checkpoint_type="UNKNOWN_99")
    transition = applied(save, head_of(prepared(A)))
    assert transition.result.reason is Reason.UNKNOWN_CHECKPOINT_TYPE
    assert transition.written
    assert transition.written.snapshot.checkpoint_type == "UNKNOWN_99"


def test_a_clock_set_back_does_not_freeze_the_head_in_the_future() -> None:
    head = head_of(prepared(A), persisted_at_us=NOW_US + 10**12)
    first = applied(prepared(A), head)
    assert first.result.reason is Reason.MAX_SKIP_AGE
    assert moved(first).persisted_at_us == NOW_US
    assert applied(prepared(A), moved(first), now_us=NOW_US + 1).result.reason is Reason.UNCHANGED


def test_a_save_without_a_request_id_records_nothing() -> None:
    assert not applied(prepared(A, request_id="")).record_result


# Skipping.


def test_a_skip_answers_with_the_snapshot_that_stands() -> None:
    head = head_of(prepared(A | {"timestamp": 1}), version=5, snapshot_id="snapshot-5")
    save = prepared(A | {"timestamp": 2})
    transition = applied(save, head)
    result = transition.result
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, Reason.UNCHANGED)
    assert (result.snapshot_id, result.version) == ("snapshot-5", 5)
    assert result.state_sha256 == head.state_sha256 != save.state_sha256
    assert result.comparison_hash == save.comparison_hash
    assert result.changed_fields == ()
    assert not result.changed_fields_truncated
    assert result.request_id == "request-1"
    assert transition == Transition(result=result)


def test_a_skipped_later_attempt_is_recorded() -> None:
    head = head_of(prepared(A))
    assert applied(prepared(A, attempt=2), head).record_result
    assert not applied(prepared(A, attempt=2, request_id=""), head).record_result


def test_nothing_is_skipped_onto_nothing() -> None:
    for gone in ({"snapshot_id": None}, {"state_sha256": None}):
        with pytest.raises(ValueError, match="nothing stands"):
            answer_skip(prepared(A), head_of(prepared(A), **gone))


# Retries.


def test_an_attempt_gets_the_first_answer() -> None:
    """A retry of a committed save sees its own hash; it must not be answered as a skip."""
    save = prepared(A)
    first = applied(save)
    recorded = RecordedResult(first.result, save.fingerprint)
    retry = applied(prepared(A, attempt=2), moved(first), earlier=recorded)
    assert retry == Transition(result=replace(first.result, replayed=True))
    assert retry.result.outcome is Outcome.PERSISTED


def test_a_request_id_is_not_used_for_two_saves() -> None:
    recorded = RecordedResult(applied(prepared(A)).result, prepared(A).fingerprint)
    with pytest.raises(RequestIdReused) as refused:
        applied(prepared(B), earlier=recorded)
    assert refused.value.metadata["request_id"] == "request-1"


# Conditions.


def test_an_expiry_lies_in_the_future() -> None:
    for expires_at_us in (NOW_US, NOW_US - 1):
        with pytest.raises(InvalidField) as refused:
            applied(prepared(A, expires_at_us=expires_at_us))
        assert refused.value.field == "expires_at"
    assert applied(prepared(A, expires_at_us=NOW_US + 1)).written


def test_a_stale_writer_is_refused() -> None:
    head = head_of(prepared(A), writer_sequence=9)
    with pytest.raises(StaleWriter) as refused:
        applied(prepared(B, writer_sequence=8), head)
    assert refused.value.metadata == {"writer_sequence": "8", "actual_writer_sequence": "9"}
    assert moved(applied(prepared(B, writer_sequence=9), head)).writer_sequence == 9
    assert moved(applied(prepared(B, writer_sequence=10), head)).writer_sequence == 10
    assert moved(applied(prepared(B), head)).writer_sequence == 9
    assert moved(applied(prepared(B, writer_sequence=0), None)).writer_sequence == 0
    assert moved(applied(prepared(B), None)).writer_sequence is None


def test_a_skip_raises_the_writer_sequence_of_the_head() -> None:
    """Else a save that its writer gave up could land after the skip was acknowledged."""
    head = head_of(prepared(A), writer_sequence=9)
    skipped = applied(prepared(A, writer_sequence=11), head)
    assert skipped.result.outcome is Outcome.SKIPPED
    assert skipped.raised_head == replace(head, writer_sequence=11)
    with pytest.raises(StaleWriter):
        applied(prepared(B, writer_sequence=10), skipped.raised_head)
    assert applied(prepared(A, writer_sequence=9), head).raised_head is None
    assert applied(prepared(A), head).raised_head is None


@pytest.mark.parametrize(
    ("head", "expected", "conflicts"),
    [
        (None, 0, False),
        (None, 1, True),
        ({"version": 4}, 4, False),
        ({"version": 4}, 3, True),
        ({"version": 4}, 5, True),
        ({"version": 4}, 0, True),
        ({"version": 4, "snapshot_id": None}, 0, False),
        ({"version": 4, "snapshot_id": None}, 4, False),
        ({"version": 4, "snapshot_id": None}, 3, True),
        ({"version": 4, "expires_at_us": NOW_US}, 0, False),  # expired, not swept yet
        ({"version": 4, "expires_at_us": NOW_US + 1}, 0, True),
    ],
)
def test_an_expected_version_is_compared_with_the_head(
    head: dict[str, Any] | None, expected: int, *, conflicts: bool
) -> None:
    standing = None if head is None else head_of(prepared(A), **head)
    save = prepared(B, expected_version=expected)
    if not conflicts:
        assert applied(save, standing).result.version == (head or {"version": 0})["version"] + 1
        return
    with pytest.raises(VersionConflict) as refused:
        applied(save, standing)
    assert refused.value.metadata == {
        "expected_version": str(expected),
        "actual_version": str(standing.version if standing else 0),
    }


def test_an_expected_version_may_end_in_a_skip() -> None:
    head = head_of(prepared(A), version=4)
    assert applied(prepared(A, expected_version=4), head).result.outcome is Outcome.SKIPPED
    with pytest.raises(VersionConflict):
        applied(prepared(A, expected_version=3), head)


def test_the_checks_have_an_order() -> None:
    """An earlier result first: a retry gets its answer though the head has moved on."""
    wrong: dict[str, Any] = {
        "expires_at_us": NOW_US,
        "writer_sequence": 1,
        "expected_version": 1,
    }
    head = head_of(prepared(A), version=5, writer_sequence=9)
    save = prepared(B, **wrong)
    recorded = RecordedResult(applied(prepared(B)).result, save.fingerprint)
    assert applied(save, head, earlier=recorded).result.replayed
    other = RecordedResult(recorded.result, b"another save")
    steps: list[tuple[type[Exception], Callable[[], Transition]]] = [
        (RequestIdReused, lambda: applied(save, head, earlier=other)),
        (InvalidField, lambda: applied(save, head)),
        (StaleWriter, lambda: applied(prepared(B, **wrong | {"expires_at_us": None}), head)),
        (VersionConflict, lambda: applied(prepared(B, expected_version=1), head)),
    ]
    for error, step in steps:
        with pytest.raises(error):
            step()


# Deleting.


def test_a_deleted_run_leaves_a_tombstone() -> None:
    first = applied(prepared(A, writer_sequence=3, expires_at_us=NOW_US + 50))
    tombstone, record = apply_delete(moved(first), now_us=NOW_US + 5)
    assert tombstone == Head(
        key=RUN,
        version=2,
        snapshot_id=None,
        comparison_hash=None,
        state_sha256=None,
        field_digests=b"",
        audit_hash=record.hash,
        persisted_at_us=NOW_US + 5,
        expires_at_us=None,
        writer_sequence=3,
    )
    assert record.kind == "DELETE"
    assert record.version == 2
    assert record.recorded_at_us == NOW_US + 5
    assert first.written
    assert verify_chain([first.written.audit, record]) is None


def test_a_deleted_run_starts_again_and_counts_on() -> None:
    first = applied(prepared(A))
    tombstone, record = apply_delete(moved(first), now_us=NOW_US)
    again = applied(prepared(A), tombstone)
    assert again.result.reason is Reason.HEAD_GONE
    assert again.result.version == 3
    assert again.result.changed_fields == ("goal",)
    assert first.written
    assert again.written
    assert verify_chain([first.written.audit, record, again.written.audit]) is None
