"""The skip decision: a pure function of a save, the run's head and the rules.

Asked twice with the same rules: once of what the read barrier saw, once under the head's lock.
"""

from dataclasses import dataclass, replace

from statekeep_server.domain.model import (
    KNOWN_TYPES,
    SKIPPABLE_TYPES,
    Head,
    Outcome,
    PreparedSave,
    Reason,
    SaveCommand,
    Would,
)
from statekeep_server.domain.values import value_class


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipRules:
    """The bounds on skipping (the drift of ignored fields that a resume may meet).

    Attributes:
        max_skip_age_us: A head older than this is not leaned on, by the database's clock.
        max_skips: Skips in a row of one run that one server may answer.
    """

    max_skip_age_us: int = 300_000_000
    max_skips: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRules:
    """What the shadow of a save is decided with, as if the optimized path had served the run.

    Attributes:
        persisted_at_us: Of the snapshot that would stand; None for the head's own.
    """

    rules: SkipRules
    skips_in_a_row: int = 0
    persisted_at_us: int | None = None


@value_class()
class Decision:
    """Whether to persist or to skip, and why."""

    outcome: Outcome
    reason: Reason


def persist_always(command: SaveCommand) -> Reason | None:
    """Say why a save is persisted whatever the head holds; None if it may be skipped.

    This is asked before anything is compared: a manual checkpoint or a recovery point must never
    be skipped for looking like the head.
    """
    if command.is_recovery_point:
        return Reason.RECOVERY_POINT
    if command.checkpoint_type not in KNOWN_TYPES:
        return Reason.UNKNOWN_CHECKPOINT_TYPE
    if command.checkpoint_type not in SKIPPABLE_TYPES:
        return Reason.CHECKPOINT_TYPE
    return None


def is_standing(head: Head | None, now_us: int) -> bool:
    """Whether a head names a snapshot that can be loaded: not deleted, swept or expired."""
    if head is None or head.snapshot_id is None or head.state_sha256 is None:
        return False
    return head.expires_at_us is None or now_us < head.expires_at_us


def may_wait(save: PreparedSave, head: Head | None, now_us: int) -> bool:
    """Whether a save that differs from the head may be written later.

    Not the first state of a run, which would not be there at all until then, and not one that has
    expired, which is to be refused.
    """
    return is_standing(head, now_us) and not _is_past(save, now_us)


def decide(
    save: PreparedSave,
    head: Head | None,
    *,
    now_us: int,
    rules: SkipRules | None,
    skips_in_a_row: int = 0,
) -> Decision:
    """Decide one save. `rules` is None on the standard path, `now_us` the database's clock."""
    reason = _reason_to_persist(save, head, now_us, rules, skips_in_a_row)
    if reason is None:
        return Decision(Outcome.SKIPPED, Reason.UNCHANGED)
    return Decision(Outcome.PERSISTED, reason)


def foresee(save: PreparedSave, head: Head | None, *, now_us: int, shadow: ShadowRules) -> Would:
    """Say what `decide` would have answered on the optimized path."""
    if head is not None and shadow.persisted_at_us is not None:
        head = replace(head, persisted_at_us=shadow.persisted_at_us)
    decision = decide(
        save, head, now_us=now_us, rules=shadow.rules, skips_in_a_row=shadow.skips_in_a_row
    )
    if head is not None and decision.outcome is Outcome.SKIPPED:
        return Would(decision.reason, head.persisted_at_us)
    return Would(decision.reason, now_us)


def _reason_to_persist(
    save: PreparedSave,
    head: Head | None,
    now_us: int,
    rules: SkipRules | None,
    skips_in_a_row: int,
) -> Reason | None:
    always = persist_always(save.command)
    if always is not None:
        return always
    if rules is None:
        return Reason.STANDARD_PATH
    if head is None or head.version == 0:
        return Reason.FIRST_SAVE
    if head.comparison_hash is None or not is_standing(head, now_us):
        return Reason.HEAD_GONE
    if head.comparison_hash != save.comparison_hash or _is_past(save, now_us):
        return Reason.CHANGED
    if _expires_sooner(head.expires_at_us, save.command.expires_at_us):
        return Reason.HEAD_EXPIRES_SOONER
    # A clock that jumped back makes the age negative: not to be trusted either.
    if not 0 <= now_us - head.persisted_at_us < rules.max_skip_age_us:
        return Reason.MAX_SKIP_AGE
    if skips_in_a_row >= rules.max_skips:
        return Reason.MAX_SKIPS
    return None


def _is_past(save: PreparedSave, now_us: int) -> bool:
    """Whether a save would have expired already: it must reach the lock, where it is refused.

    So no answer ever gives a reason for it.
    """
    expires_at_us = save.command.expires_at_us
    return expires_at_us is not None and expires_at_us <= now_us


def _expires_sooner(head_us: int | None, save_us: int | None) -> bool:
    """Whether the head's snapshot goes before the save's would; None never goes."""
    return head_us is not None and (save_us is None or head_us < save_us)
