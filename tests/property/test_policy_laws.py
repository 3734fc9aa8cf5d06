"""The laws of the skip decision, over every combination of a save, a head and the rules."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.domain.model import CheckpointType, Head, Outcome, PreparedSave, Reason
from statekeep_server.domain.policy import SkipRules, decide
from tests.support.saves import NOW_US, head_of, prepared

TIMES = st.integers(-3, 3).map(lambda delta: NOW_US + delta)
SAVES = st.builds(
    prepared,
    state=st.sampled_from([{"a": 1}, {"a": 2}, {"a": 1, "timestamp": 3}]),
    checkpoint_type=st.sampled_from([*CheckpointType, "AUTO", "INTERMEDIATE", "UNKNOWN_42"]),
    is_recovery_point=st.booleans(),
    expires_at_us=st.none() | TIMES,
)


@st.composite
def heads(draw: st.DrawFn) -> Head | None:
    changes: dict[str, Any] = {
        "version": draw(st.integers(0, 3)),
        "expires_at_us": draw(st.none() | TIMES),
        "persisted_at_us": draw(TIMES),
    }
    if draw(st.booleans()):
        gone = draw(st.sampled_from(["snapshot_id", "comparison_hash", "state_sha256"]))
        changes[gone] = None
    return draw(st.sampled_from([None, head_of(prepared({"a": 1}), **changes)]))


RULES = st.builds(SkipRules, max_skip_age_us=st.integers(0, 4), max_skips=st.integers(0, 3))


def may_skip(save: PreparedSave, head: Head | None, rules: SkipRules | None, skips: int) -> bool:
    """Say in one sentence when a save may be skipped."""
    wanted_until = save.command.expires_at_us or float("inf")
    return (
        rules is not None
        and head is not None
        and head.version > 0
        and save.command.checkpoint_type in {"AUTO", "INTERMEDIATE"}
        and not save.command.is_recovery_point
        and None not in {head.snapshot_id, head.state_sha256}
        and head.comparison_hash == save.comparison_hash
        and (head.expires_at_us or float("inf")) >= wanted_until > NOW_US
        and (head.expires_at_us or float("inf")) > NOW_US
        and 0 <= NOW_US - head.persisted_at_us < rules.max_skip_age_us
        and skips < rules.max_skips
    )


@settings(max_examples=500)
@given(SAVES, heads(), st.none() | RULES, st.integers(0, 3))
def test_a_save_is_skipped_when_all_allows_it_and_only_then(
    save: PreparedSave, head: Head | None, rules: SkipRules | None, skips: int
) -> None:
    decision = decide(save, head, now_us=NOW_US, rules=rules, skips_in_a_row=skips)
    skipped = decision.outcome is Outcome.SKIPPED
    assert skipped == may_skip(save, head, rules, skips)
    assert skipped == (decision.reason is Reason.UNCHANGED)


@given(SAVES, heads(), RULES, st.integers(0, 3))
def test_stricter_rules_never_skip_more(
    save: PreparedSave, head: Head | None, rules: SkipRules, skips: int
) -> None:
    def skipped(with_rules: SkipRules | None, after: int) -> bool:
        made = decide(save, head, now_us=NOW_US, rules=with_rules, skips_in_a_row=after)
        return made.outcome is Outcome.SKIPPED

    looser = SkipRules(max_skip_age_us=rules.max_skip_age_us + 1, max_skips=rules.max_skips + 1)
    assert skipped(rules, skips) <= skipped(looser, skips)
    assert skipped(rules, skips + 1) <= skipped(rules, skips)
    assert not skipped(None, skips)
