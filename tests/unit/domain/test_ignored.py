"""Ignored fields: what a list means, and which lists are refused."""

import json
from typing import Any

import pytest

from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.ignored import (
    DEFAULT_IGNORED_FIELDS,
    compile_ignored,
    merge_ignored,
    prune,
    prune_object,
)
from tests.support import canonical_oracle as oracle
from tests.support.project import ROOT

STATE: dict[str, Any] = {
    "plan": [{"seen_at": 1, "goal": "a"}, {"seen_at": 2, "goal": "b"}],
    "meta": {"at": 3, "*": 4, "a/b": 5, "~": 6},
    "timestamp": 7,
}


def pruned(*names: str) -> dict[str, Any]:
    return prune_object(STATE, compile_ignored(names).tree)


def test_a_pointer_reaches_down() -> None:
    assert pruned("/meta/at")["meta"] == {"*": 4, "a/b": 5, "~": 6}
    assert pruned("/plan/1/goal")["plan"] == [{"seen_at": 1, "goal": "a"}, {"seen_at": 2}]


def test_a_star_is_every_element_of_an_array_and_a_name_in_an_object() -> None:
    assert pruned("/plan/*/seen_at")["plan"] == [{"goal": "a"}, {"goal": "b"}]
    assert pruned("/plan/*")["plan"] == []
    assert pruned("/meta/*")["meta"] == {"at": 3, "a/b": 5, "~": 6}


def test_an_index_and_a_star_work_together() -> None:
    names = ("/plan/*/seen_at", "/plan/0/goal")
    assert pruned(*names)["plan"] == [{}, {"goal": "b"}]
    assert pruned("/plan/0", "/plan/*/seen_at")["plan"] == [{"goal": "b"}]
    assert prune([[{"a": 1}]], compile_ignored(["/*/0", "/0/*/a"]).tree) == [[]]
    assert prune([[{"a": 1, "b": 2}]], compile_ignored(["/*/0/a", "/0/*/b"]).tree) == [[{}]]


def test_escapes_stand_for_slash_and_tilde() -> None:
    assert pruned("/meta/a~1b", "/meta/~0")["meta"] == {"at": 3, "*": 4}
    assert compile_ignored(["/~01", "/~00", "/~10"]).top == {"~1", "~0", "/0"}


def test_what_is_not_reached_stays() -> None:
    names = (
        "/plan/2",
        "/plan/x",
        "/plan/00",
        "/plan/-1",
        "/meta/at/x",
        "/no/where",
        "/timestamp/0",
    )
    assert pruned(*names) == STATE
    assert prune("text", compile_ignored(["/0"]).tree) == "text"


def test_the_shorter_pointer_takes_the_branch() -> None:
    for names in (
        ["/meta", "/meta/at"],
        ["/meta/at", "/meta"],
        ["/meta/at/x", "/meta", "/meta/at"],
    ):
        assert "meta" not in pruned(*names)


def test_a_bare_name_is_a_member_of_the_top_level_only() -> None:
    ignored = compile_ignored(["at", "0", "*"])
    assert ignored.top == {"at", "0", "*"}
    assert prune([1, {"at": 1}], ignored.tree) == [1, {"at": 1}]
    assert compile_ignored(["/at", "/"]).top == {"at", ""}


def test_the_state_itself_is_not_changed() -> None:
    before = json.dumps(STATE)
    pruned("/plan/*/seen_at", "/meta/at", "/plan/0")
    assert json.dumps(STATE) == before


def test_a_list_is_sorted_and_each_name_stands_once() -> None:
    ignored = compile_ignored(["b", "/a", "b"])
    assert ignored.names == ("/a", "b")
    assert ignored == compile_ignored(["/a", "b"])
    assert ignored.digest == oracle.digest("statekeep ignored fields", b"/a", b"b")
    assert ignored.digest != compile_ignored(["b"]).digest
    assert compile_ignored(["ab"]).digest != compile_ignored(["a", "b"]).digest


def test_a_request_adds_to_the_list() -> None:
    server = compile_ignored(["a"])
    assert merge_ignored(server, ("b",)) == compile_ignored(["a", "b"])
    assert merge_ignored(server, ("a",)) == server
    with pytest.raises(InvalidField):
        merge_ignored(server, ("",))


def test_the_default_list_is_documented() -> None:
    page = (ROOT / "docs" / "canonical-form.md").read_text("utf-8")
    assert "```\n" + "\n".join(DEFAULT_IGNORED_FIELDS) + "\n```" in page


def test_the_default_list_is_conservative() -> None:
    assert list(DEFAULT_IGNORED_FIELDS) == sorted(DEFAULT_IGNORED_FIELDS)
    assert "step_count" not in DEFAULT_IGNORED_FIELDS
    assert {"last_updated", "heartbeat_count"} <= set(DEFAULT_IGNORED_FIELDS)


@pytest.mark.parametrize("name", ["", "x" * 257, "\ud800", "/a~", "/~2", "/a~~01"])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(InvalidField) as refused:
        compile_ignored(["good", name])
    assert refused.value.field == "ignored_fields"
    assert refused.value.metadata.get("limit") == ("256" if len(name) > 256 else None)


def test_a_tilde_in_a_bare_name_is_a_tilde() -> None:
    assert compile_ignored(["a~b", "x" * 256]).top == {"a~b", "x" * 256}
