"""The oracle, against examples by hand: it knows the promise, and sees through every lie."""

import ast
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from statekeep_server.bench import oracle as module
from statekeep_server.bench.oracle import Answer, Oracle, Rules
from statekeep_server.bench.streams import StreamSave

SKIPPING = Rules(
    skips=True, ignored_fields=("last_updated",), max_skips=1_000, max_skip_age_s=300.0
)


def save(
    value: Any = 1, *, at: str = "t", kind: str = "AUTO", recovery: bool = False
) -> StreamSave:
    return StreamSave({"value": value, "last_updated": at}, kind, recovery)


def sent(asked: StreamSave) -> bytes:
    return repr(asked.state).encode()


def persisted(asked: StreamSave, version: int, **changes: Any) -> Answer:
    answer = Answer(
        outcome="PERSISTED",
        reason="CHANGED",
        path="OPTIMIZED",
        snapshot_id=f"s-{version}",
        version=version,
        state_sha256=hashlib.sha256(sent(asked)).digest(),
        sent_s=10.0,
        answered_s=10.5,
    )
    return replace(answer, **changes)


def skipped(standing: StreamSave, version: int, **changes: Any) -> Answer:
    return persisted(standing, version, **({"outcome": "SKIPPED", "reason": "UNCHANGED"} | changes))


def problems(*answered: tuple[StreamSave, Answer], rules: Rules = SKIPPING) -> list[str]:
    oracle = Oracle("run", rules)
    for asked, answer in answered:
        oracle.judge(asked, sent(asked), answer)
    return [f"{each.save}: {each.problem}" for each in oracle.differences]


A, A_LATER, B = save(1), save(1, at="later"), save(2)


def test_what_is_right_is_right() -> None:
    manual, recovery = save(2, kind="MANUAL"), save(2, recovery=True)
    answered = [
        (A, persisted(A, 1)),
        (A_LATER, skipped(A, 1)),
        (B, persisted(B, 2)),
        (A, persisted(A, 3)),  # equal to an old one, not to the last that was kept
        (A_LATER, skipped(A, 3)),
        (manual, persisted(manual, 4)),
        (recovery, persisted(recovery, 5)),
        (save(2, at="x", kind="INTERMEDIATE"), skipped(recovery, 5)),
    ]
    assert problems(*answered) == []


def test_it_says_what_must_stand_in_the_end() -> None:
    oracle = Oracle("run", SKIPPING)
    for asked, answer in ((A, persisted(A, 1)), (A_LATER, skipped(A, 1))):
        oracle.judge(asked, sent(asked), answer)
    assert oracle.kept_sha256 == hashlib.sha256(sent(A)).digest()


@pytest.mark.parametrize(
    "kind",
    [
        "MANUAL",
        "RECOVERY",
        "PHASE_TRANSITION",
        "FULL",
        "CRITICAL",
        "PIPELINE_COMPLETE",
        "UNKNOWN_9",
    ],
)
def test_only_automatic_saves_may_be_skipped(kind: str) -> None:
    found = problems((A, persisted(A, 1)), (save(1, kind=kind), skipped(A, 1)))
    assert found == ["1: SKIPPED (UNCHANGED), but it had to be PERSISTED"]


def test_a_recovery_point_may_not_be_skipped() -> None:
    found = problems((A, persisted(A, 1)), (save(1, recovery=True), skipped(A, 1)))
    assert found == ["1: SKIPPED (UNCHANGED), but it had to be PERSISTED"]


def test_a_change_may_not_be_skipped() -> None:
    found = problems((A, persisted(A, 1)), (B, skipped(A, 1)))
    assert found == ["1: SKIPPED (UNCHANGED), but it had to be PERSISTED"]


def test_the_first_save_may_not_be_skipped() -> None:
    assert problems((A, skipped(A, 1))) == ["0: SKIPPED (UNCHANGED), but it had to be PERSISTED"]


def test_a_repetition_may_not_be_persisted() -> None:
    found = problems((A, persisted(A, 1)), (A_LATER, persisted(A_LATER, 2)))
    assert "1: PERSISTED (CHANGED), but it had to be SKIPPED" in found


@pytest.mark.parametrize(
    "lie",
    [{"snapshot_id": "invented"}, {"version": 2}, {"state_sha256": b"\0" * 32}],
    ids=["id", "version", "hash"],
)
def test_a_skip_names_the_snapshot_that_stands(lie: dict[str, Any]) -> None:
    found = problems((A, persisted(A, 1)), (A_LATER, replace(skipped(A, 1), **lie)))
    assert len(found) == 1
    assert "'s-1' of version 1 stands" in found[0]


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        ({"snapshot_id": "s-1"}, "snapshot id 's-1' is not a new one"),
        ({"snapshot_id": ""}, "snapshot id '' is not a new one"),
        ({"version": 1}, "version 1 follows 1"),
        ({"version": 3}, "version 3 follows 1"),
        ({"state_sha256": b"\0" * 32}, "the SHA-256 is not that of the bytes that were sent"),
    ],
)
def test_a_persisted_save_has_an_id_a_version_and_a_hash_of_its_own(
    lie: dict[str, Any], problem: str
) -> None:
    assert problems((A, persisted(A, 1)), (B, replace(persisted(B, 2), **lie))) == [f"1: {problem}"]


def test_values_that_only_look_equal_are_not() -> None:
    one, true, text = save(1), save(True), save("1")
    whole, wide = save(1.0), save(2**70)
    answered = [(each, persisted(each, i + 1)) for i, each in enumerate([one, true, text, whole])]
    answered += [(wide, persisted(wide, 5)), (save(2**70 + 1), persisted(save(2**70 + 1), 6))]
    assert problems(*answered) == []


def test_the_order_of_keys_is_no_change_and_a_deep_field_is_one() -> None:
    ab, ba = save({"a": 1, "b": 2}), save({"b": 2, "a": 1})
    deep = save({"a": 1, "b": 2, "last_updated": 1})
    assert problems((ab, persisted(ab, 1)), (ba, skipped(ab, 1)), (deep, persisted(deep, 2))) == []


def test_without_skipping_everything_is_kept() -> None:
    standard = replace(SKIPPING, skips=False)
    assert problems((A, persisted(A, 1)), (A, persisted(A, 2)), rules=standard) == []
    assert problems((A, persisted(A, 1)), (A, skipped(A, 1)), rules=standard) == [
        "1: SKIPPED (UNCHANGED), but it had to be PERSISTED"
    ]


def test_skips_in_a_row_are_bounded() -> None:
    rules = replace(SKIPPING, max_skips=2)
    skips = [(A_LATER, skipped(A, 1))] * 2
    kept = (A_LATER, persisted(A_LATER, 2, reason="MAX_SKIPS"))
    more = (A_LATER, skipped(A_LATER, 2))
    assert problems((A, persisted(A, 1)), *skips, kept, more, rules=rules) == []
    assert problems((A, persisted(A, 1)), *skips, *skips[:1], rules=rules) == [
        "3: SKIPPED (UNCHANGED), but it had to be PERSISTED"
    ]


def test_an_old_snapshot_may_be_replaced_when_it_can_be_that_old() -> None:
    late = persisted(A_LATER, 2, reason="MAX_SKIP_AGE", sent_s=309.0, answered_s=310.0)
    assert problems((A, persisted(A, 1)), (A_LATER, late)) == []
    early = replace(late, answered_s=309.9)
    assert problems((A, persisted(A, 1)), (A_LATER, early))[0] == (
        "1: PERSISTED (MAX_SKIP_AGE), but it had to be SKIPPED"
    )
    other = replace(late, reason="CHANGED")
    assert problems((A, persisted(A, 1)), (A_LATER, other))[0].startswith("1: PERSISTED (CHANGED)")


def test_the_oracle_shares_nothing_with_the_server() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    ours = {name for name in imported if name.startswith("statekeep")}
    assert ours == {"statekeep_server.bench.streams"}
