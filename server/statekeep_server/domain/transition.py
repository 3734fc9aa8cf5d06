"""The locked save as a pure function: what a store writes and answers for one save.

Every store calls this with what it read under the lock of the run's head, and writes what comes
back in the same transaction. So the order of the checks, the next version, the next link of the
audit chain and the answer are the same everywhere.

Times are the database's. A head's `persisted_at_us` is the time of its write even where the clock
was set back: versions give the order of writes, and a head that kept the later time would be "in
the future", and so never be leaned on, until the clock caught up.
"""

from dataclasses import replace

from statekeep_server.domain.audit import GENESIS, AuditRecord, seal
from statekeep_server.domain.differ import changed_fields
from statekeep_server.domain.errors import (
    InvalidField,
    RequestIdReused,
    StaleWriter,
    VersionConflict,
)
from statekeep_server.domain.model import (
    Head,
    Outcome,
    PreparedSave,
    Reason,
    SaveResult,
    Snapshot,
)
from statekeep_server.domain.policy import ShadowRules, SkipRules, decide, foresee, is_standing
from statekeep_server.domain.values import value_class


@value_class()
class RecordedResult:
    """What a request id remembers: the result of its save, and which save it was."""

    result: SaveResult
    fingerprint: bytes


@value_class(kw_only=True)
class Written:
    """What a persisted save writes. The snapshot carries its state."""

    snapshot: Snapshot
    head: Head
    audit: AuditRecord


@value_class(kw_only=True)
class Transition:
    """What one save does to its run.

    Attributes:
        result: The answer, after the commit.
        written: None when nothing was persisted.
        record_result: Whether the result is stored under the request id.
        raised_head: For a skip with a higher `writer_sequence` than the head's: the head with that
            sequence, to be stored. Without it an abandoned save of the same writer could still
            land after the acknowledged skip. None otherwise.
    """

    result: SaveResult
    written: Written | None = None
    record_result: bool = False
    raised_head: Head | None = None


def apply_save(
    save: PreparedSave,
    *,
    head: Head | None,
    earlier: RecordedResult | None,
    now_us: int,
    rules: SkipRules | None,
    skips_in_a_row: int,
    snapshot_id: str,
    shadow: ShadowRules | None = None,
) -> Transition:
    """Decide one save under the lock of its head.

    Args:
        save: The save.
        head: The head as it stands; None when the run was never written.
        earlier: What the request id remembers; None when nothing.
        now_us: The database's clock, read after the head was locked.
        rules: When to skip; None on the standard path.
        skips_in_a_row: How often this server skipped the run since it was last persisted.
        snapshot_id: The id of the snapshot, should there be one.
        shadow: What else is to be decided, and told beside the answer.

    Raises RequestIdReused, InvalidField (`expires_at` is not in the future), StaleWriter or
    VersionConflict, in this order.
    """
    if earlier is not None:
        return Transition(result=answer_earlier(save, earlier))
    _check(save, head, now_us)
    decision = decide(save, head, now_us=now_us, rules=rules, skips_in_a_row=skips_in_a_row)
    command = save.command
    if head is not None and decision.outcome is Outcome.SKIPPED:
        sequence = _highest_sequence(save, head)
        raised = None
        if sequence != head.writer_sequence:
            raised = replace(head, writer_sequence=sequence)
        return Transition(
            result=answer_skip(save, head),
            # A later attempt has an earlier one that may still wake up: it must find this answer.
            record_result=command.attempt > 1 and bool(command.request_id),
            raised_head=raised,
        )
    written = _write(save, head, now_us, snapshot_id)
    changes = changed_fields(head.field_digests if head else b"", save.field_digests)
    result = SaveResult(
        outcome=Outcome.PERSISTED,
        reason=decision.reason,
        snapshot_id=snapshot_id,
        version=written.head.version,
        state_sha256=save.state_sha256,
        comparison_hash=save.comparison_hash,
        changed_fields=changes.names,
        changed_fields_truncated=changes.truncated,
        request_id=command.request_id,
        would=None if shadow is None else foresee(save, head, now_us=now_us, shadow=shadow),
    )
    return Transition(result=result, written=written, record_result=bool(command.request_id))


def apply_delete(head: Head, *, now_us: int) -> tuple[Head, AuditRecord]:
    """Delete a run: its head becomes a tombstone with the next version, which nothing matches.

    The highest writer sequence stays, so that an abandoned save cannot bring the run back.
    """
    version = head.version + 1
    record = seal(
        head.audit_hash,
        AuditRecord(
            key=head.key,
            version=version,
            kind="DELETE",
            snapshot_id=None,
            state_sha256=None,
            comparison_hash=None,
            checkpoint_type="",
            thread_id="",
            user_id="",
            is_recovery_point=False,
            request_id="",
            recorded_at_us=now_us,
        ),
    )
    tombstone = replace(
        head,
        version=version,
        snapshot_id=None,
        comparison_hash=None,
        state_sha256=None,
        field_digests=b"",
        audit_hash=record.hash,
        persisted_at_us=now_us,
        expires_at_us=None,
    )
    return tombstone, record


def answer_earlier(save: PreparedSave, earlier: RecordedResult) -> SaveResult:
    """Answer an attempt with the recorded result of an earlier one.

    Raises RequestIdReused when the request id belongs to another save.
    """
    if earlier.fingerprint != save.fingerprint:
        raise RequestIdReused(save.command.request_id)
    return replace(earlier.result, replayed=True)


def answer_skip(save: PreparedSave, head: Head) -> SaveResult:
    """Answer a skipped save with the snapshot that stands, by its real id and version.

    Raises ValueError for a head on which no save can be skipped.
    """
    if head.snapshot_id is None or head.state_sha256 is None:
        raise ValueError("nothing stands on this head")
    return SaveResult(
        outcome=Outcome.SKIPPED,
        reason=Reason.UNCHANGED,
        snapshot_id=head.snapshot_id,
        version=head.version,
        state_sha256=head.state_sha256,
        comparison_hash=save.comparison_hash,
        changed_fields=(),
        changed_fields_truncated=False,
        request_id=save.command.request_id,
    )


def _check(save: PreparedSave, head: Head | None, now_us: int) -> None:
    command = save.command
    if command.expires_at_us is not None and command.expires_at_us <= now_us:
        raise InvalidField("expires_at", "must lie in the future")
    sequence = command.writer_sequence
    stored = head.writer_sequence if head else None
    if sequence is not None and stored is not None and sequence < stored:
        raise StaleWriter(sequence, stored)
    expected = command.expected_version
    version = head.version if head else 0
    if expected is None or expected == version:
        return
    if expected == 0 and not is_standing(head, now_us):
        return
    raise VersionConflict(expected, version)


def _highest_sequence(save: PreparedSave, head: Head | None) -> int | None:
    given = (save.command.writer_sequence, head.writer_sequence if head else None)
    return max((sequence for sequence in given if sequence is not None), default=None)


def _write(save: PreparedSave, head: Head | None, now_us: int, snapshot_id: str) -> Written:
    command = save.command
    version = (head.version if head else 0) + 1
    audit = seal(
        head.audit_hash if head else GENESIS,
        AuditRecord(
            key=command.key,
            version=version,
            kind="SAVE",
            snapshot_id=snapshot_id,
            state_sha256=save.state_sha256,
            comparison_hash=save.comparison_hash,
            checkpoint_type=command.checkpoint_type,
            thread_id=command.thread_id,
            user_id=command.user_id,
            is_recovery_point=command.is_recovery_point,
            request_id=command.request_id,
            recorded_at_us=now_us,
        ),
    )
    moved = Head(
        key=command.key,
        version=version,
        snapshot_id=snapshot_id,
        comparison_hash=save.comparison_hash,
        state_sha256=save.state_sha256,
        field_digests=save.field_digests,
        audit_hash=audit.hash,
        persisted_at_us=now_us,
        expires_at_us=command.expires_at_us,
        writer_sequence=_highest_sequence(save, head),
    )
    snapshot = Snapshot(
        key=command.key,
        snapshot_id=snapshot_id,
        version=version,
        thread_id=command.thread_id,
        user_id=command.user_id,
        checkpoint_type=command.checkpoint_type,
        agent_phase=command.agent_phase,
        execution_context=command.execution_context,
        is_recovery_point=command.is_recovery_point,
        persisted_at_us=now_us,
        expires_at_us=command.expires_at_us,
        content_type=command.content_type,
        state_bytes=len(command.state),
        state_sha256=save.state_sha256,
        comparison_hash=save.comparison_hash,
        state=command.state,
    )
    return Written(snapshot=snapshot, head=moved, audit=audit)
