"""Preparation: what the hashes of a save cover, and what they leave out."""

import hashlib
from typing import Any

import pytest

from statekeep_server.domain.canonical import compile_ignored
from statekeep_server.domain.differ import changed_fields
from statekeep_server.domain.errors import InvalidField, StateNotJson
from statekeep_server.domain.model import RunKey
from statekeep_server.domain.prepare import is_json, normalize_content_type
from tests.support import canonical_oracle as oracle
from tests.support.saves import DEFAULT_IGNORED, prepared

STATE = {"goal": "find a flight", "step_count": 3, "last_updated": "2026-01-01T00:00:00Z"}


def test_trivial_fields_do_not_change_the_comparison() -> None:
    later = STATE | {"last_updated": "2026-01-02T00:00:00Z", "heartbeat_count": 9}
    assert prepared(STATE).comparison_hash == prepared(later).comparison_hash
    assert prepared(STATE).state_sha256 != prepared(later).state_sha256
    assert prepared(STATE).fingerprint != prepared(later).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"state": STATE | {"step_count": 4}},
        {"content_type": "application/vnd.agent+json"},
        {"content_type": "text/plain"},
        {"thread_id": "thread-1"},
        {"user_id": "user-1"},
        {"agent_phase": "planning"},
        {"execution_context": (("host", "a"),)},
        {"execution_context": (("hos", "ta"),)},
        {"ignored_fields": ("goal",)},
    ],
)
def test_what_means_something_changes_the_comparison(change: dict[str, Any]) -> None:
    given = {"state": STATE} | change
    assert prepared(**given).comparison_hash != prepared(STATE).comparison_hash


def test_texts_do_not_run_into_each_other() -> None:
    one = prepared(STATE, thread_id="ab", user_id="c")
    assert one.comparison_hash != prepared(STATE, thread_id="a", user_id="bc").comparison_hash
    assert one.comparison_hash != prepared(STATE, thread_id="c", user_id="ab").comparison_hash


@pytest.mark.parametrize(
    "change",
    [
        {"key": RunKey("default", "run-2")},
        {"checkpoint_type": "INTERMEDIATE"},
        {"is_recovery_point": True},
        {"expires_at_us": 1},
        {"request_id": "request-2"},
        {"attempt": 2},
        {"expected_version": 1},
        {"writer_sequence": 1},
        {"content_type": "Application/JSON; charset=UTF-8"},
        {"ignored_fields": ("last_updated",)},  # on the server's list already
    ],
)
def test_what_is_about_the_saving_does_not_change_the_comparison(change: dict[str, Any]) -> None:
    assert prepared(STATE, **change).comparison_hash == prepared(STATE).comparison_hash


def test_the_comparison_hash_is_that_of_the_document() -> None:
    save = prepared(
        {"b": 1, "a": [1.0, None], "timestamp": 5},
        thread_id="t",
        user_id="u",
        agent_phase="p",
        execution_context=(("k", "v"), ("l", "")),
        ignored_fields=("c", "timestamp"),
    )
    assert save.comparison_hash == oracle.comparison_hash(
        b'{"a":[1.0,null],"b":1}',
        ignored=(*DEFAULT_IGNORED.names, "c"),
        thread_id="t",
        user_id="u",
        agent_phase="p",
        execution_context={"l": "", "k": "v"},
    )
    assert save.state_sha256 == hashlib.sha256(save.command.state).digest()


def test_other_lists_never_match() -> None:
    """Servers with different lists see different hashes, also where no field is concerned."""
    other = compile_ignored([*DEFAULT_IGNORED.names, "nothing_here"])
    assert prepared(STATE, ignored=other).comparison_hash != prepared(STATE).comparison_hash


def test_the_state_is_kept_verbatim() -> None:
    raw = b' {"b" : 1e2,\n"a":"\\u0041"} '
    save = prepared(raw)
    assert save.command.state == raw
    assert save.comparison_hash == prepared(b'{"a":"A","b":100.0}').comparison_hash


@pytest.mark.parametrize(
    "change",
    [
        {"state": b'{"a": 1}'},
        {"key": RunKey("default", "run-2")},
        {"key": RunKey("other", "run-1")},
        {"content_type": "application/vnd.agent+json"},
        {"thread_id": "t"},
        {"user_id": "t"},
        {"agent_phase": "t"},
        {"checkpoint_type": "MANUAL"},
        {"execution_context": (("t", ""),)},
        {"is_recovery_point": True},
        {"expires_at_us": 1},
        {"expected_version": 0},
        {"ignored_fields": ("t",)},
        {"writer_sequence": 0},
    ],
)
def test_the_fingerprint_covers_every_option(change: dict[str, Any]) -> None:
    given = {"state": b'{"a":1}'} | change
    assert prepared(**given).fingerprint != prepared(b'{"a":1}').fingerprint


def test_the_fingerprint_is_that_of_every_attempt_on_every_server() -> None:
    first = prepared(STATE).fingerprint
    assert prepared(STATE, attempt=2).fingerprint == first
    assert prepared(STATE, ignored=compile_ignored(())).fingerprint == first


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("application/json", "application/json"),
        ("Application/JSON;charset=utf-8", "application/json"),
        ("application/json ; Charset=UTF-8 ; v=1", "application/json; v=1"),
        ("Application/Vnd.X+JSON", "application/vnd.x+json"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("text/plain;", "text/plain"),
    ],
)
def test_a_content_type_has_one_spelling(given: str, normal: str) -> None:
    assert normalize_content_type(given) == normal


def test_json_is_known_by_its_type() -> None:
    assert is_json("application/json")
    assert is_json("application/json; v=1")
    assert is_json("application/vnd.x+json; v=1")
    assert not is_json("text/plain; x=+json")
    assert not is_json("application/jsonl")


def test_other_types_are_compared_whole() -> None:
    for raw in (b'{"timestamp": 1}', b"\xff\x00", b"", b"NaN"):
        save = prepared(raw, content_type="application/octet-stream")
        assert save.comparison_hash == oracle.comparison_hash(
            raw, ignored=DEFAULT_IGNORED.names, content_type="application/octet-stream"
        )
    with pytest.raises(StateNotJson):
        prepared(b"", content_type="")


def test_the_field_digests_follow_the_type() -> None:
    before = prepared({"a": 1, "timestamp": 1}).field_digests
    assert changed_fields(before, prepared({"a": 2, "timestamp": 2}).field_digests).names == ("a",)
    for save in (prepared([1, 2]), prepared(b"x", content_type="text/plain")):
        assert changed_fields(b"", save.field_digests).names == ("",)


def test_a_request_may_not_break_the_list() -> None:
    with pytest.raises(InvalidField) as refused:
        prepared(STATE, ignored_fields=("/a~",))
    assert refused.value.field == "ignored_fields"
