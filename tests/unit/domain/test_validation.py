"""Validation: every field has its limits, and every refusal names its field."""

from dataclasses import replace
from typing import Any

import pytest

from statekeep_server.domain.errors import InvalidField, StateTooLarge
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import ById, ByVersion, Newest, RunKey, Selector, make_context
from statekeep_server.domain.validation import (
    page_size,
    validate_key,
    validate_save,
    validate_selector,
    validate_text,
)
from tests.support.saves import command

LIMITS = Limits()
YEAR_10000_US = 253_402_300_800_000_000


def refusal(field: str, value: Any) -> InvalidField:
    given: dict[str, Any] = {field: value}
    if field in {"run_id", "tenant"}:
        given = {"key": RunKey("default", "run-1")._replace(**given)}
    with pytest.raises(InvalidField) as refused:
        validate_save(command(**given), LIMITS)
    return refused.value


@pytest.mark.parametrize("field", ["run_id", "tenant", "checkpoint_type"])
def test_what_is_required_is_required(field: str) -> None:
    error = refusal(field, "")
    assert error.field == field
    assert error.message == f"{field}: is required"


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("tenant", 256),
        ("run_id", 256),
        ("thread_id", 256),
        ("user_id", 256),
        ("agent_phase", 256),
        ("request_id", 128),
        ("checkpoint_type", 64),
        ("content_type", 128),
    ],
)
def test_a_text_has_a_longest_length(field: str, limit: int) -> None:
    path = "state.content_type" if field == "content_type" else field
    error = refusal(field, "x" * (limit + 1))
    assert error.metadata == {"field": path, "limit": str(limit)}
    given: dict[str, Any] = {field: "é" * limit}  # characters, not bytes
    if field == "content_type":
        given = {field: "a/" + "b" * (limit - 2)}
    if field in {"run_id", "tenant"}:
        given = {"key": RunKey("default", "run-1")._replace(**given)}
    validate_save(command(**given), LIMITS)


FORBIDDEN = ["a\0b", "a\nb", "a\x7fb", "a\x85b", "a\u200bb", "a\u202eb", "\ufeffa", "a\u2028b"]
FORBIDDEN += ["a\u2029b", "a\ud800b", "a\U000e0001b"]


@pytest.mark.parametrize("value", FORBIDDEN)
@pytest.mark.parametrize(
    "field",
    ["tenant", "run_id", "thread_id", "user_id", "agent_phase", "request_id", "checkpoint_type"],
)
def test_invisible_characters_are_refused(field: str, value: str) -> None:
    error = refusal(field, value)
    assert error.field == field
    assert value not in error.message


@pytest.mark.parametrize("value", [" ", "\u3000", " a", "a ", "\u00a0a"])
@pytest.mark.parametrize("field", ["run_id", "thread_id", "user_id", "request_id"])
def test_blank_ids_and_white_space_around_them_are_refused(field: str, value: str) -> None:
    assert refusal(field, value).field == field


@pytest.mark.parametrize(
    "value", ["a b", "a\u3000b", "日本語", "😀", "run:1/2?#%", "..", "\ue000", "\U0001fae9"]
)
def test_visible_characters_are_taken(value: str) -> None:
    validate_key(RunKey("default", value), LIMITS)
    validate_text("thread_id", value, LIMITS)


def test_optional_texts_may_be_empty() -> None:
    validate_save(
        command(thread_id="", user_id="", agent_phase="", request_id="", content_type=""), LIMITS
    )
    validate_save(command(agent_phase=" planning "), LIMITS)
    validate_text("user_id", "", LIMITS)


def test_a_state_has_a_largest_size() -> None:
    validate_save(command(b"x" * 10), Limits(max_state_bytes=10))
    with pytest.raises(StateTooLarge) as refused:
        validate_save(command(b"x" * 11), Limits(max_state_bytes=10))
    assert refused.value.metadata == {"field": "state.data", "size": "11", "limit": "10"}


@pytest.mark.parametrize("value", ["json", "/json", "application/", "a b/c", "a/b c", "é/x", ";"])
def test_a_content_type_looks_like_one(value: str) -> None:
    assert refusal("content_type", value).field == "state.content_type"


def test_defaults_are_filled_in() -> None:
    given = command(attempt=0, content_type="")
    save = validate_save(given, LIMITS)
    assert save == replace(given, attempt=1, content_type="application/json")
    assert validate_save(save, LIMITS) is save
    assert validate_save(replace(given, attempt=2), LIMITS).attempt == 2
    assert validate_save(replace(given, content_type="a/b"), LIMITS).content_type == "a/b"


def test_an_execution_context_has_so_many_entries_and_bytes() -> None:
    full = make_context({f"k{n:02}": "" for n in range(64)})
    validate_save(command(execution_context=full), LIMITS)
    assert refusal("execution_context", (*full, ("l", ""))).metadata["limit"] == "64"
    wide = (("k", "é" * 8_191 + "x"),)  # 16 KiB with its key
    validate_save(command(execution_context=wide), LIMITS)
    error = refusal("execution_context", (("kk", wide[0][1]),))
    assert error.metadata == {"field": "execution_context", "limit": "16384"}


@pytest.mark.parametrize(
    "pairs",
    [
        (("", "a"),),
        (("a\n", "a"),),
        (("k" * 257, "a"),),
        (("a", "\0"),),
        (("a", "\ud800"),),
        (("a", "1"), ("a", "2")),
        (("b", "1"), ("a", "2")),
    ],
)
def test_an_execution_context_is_a_map_of_texts(pairs: tuple[tuple[str, str], ...]) -> None:
    assert refusal("execution_context", pairs).field == "execution_context"


def test_a_context_value_may_have_lines() -> None:
    validate_save(command(execution_context=(("trace", "line 1\n\tline 2"),)), LIMITS)


def test_a_request_ignores_so_many_fields() -> None:
    names = tuple(f"n{n}" for n in range(64))
    validate_save(command(ignored_fields=names), LIMITS)
    assert refusal("ignored_fields", (*names, "one_more")).metadata["limit"] == "64"


@pytest.mark.parametrize("field", ["attempt", "expected_version", "writer_sequence"])
def test_numbers_are_whole_and_fit_64_bits(field: str) -> None:
    for value in (-1, 2**63):
        assert refusal(field, value).field == field
    for value in (0, 2**63 - 1):
        validate_save(command(**{field: value}), LIMITS)


def test_an_expiry_is_a_time_that_can_be_stored() -> None:
    for value in (-1, 0, YEAR_10000_US):
        assert refusal("expires_at_us", value).field == "expires_at"
    for good in (None, 1, YEAR_10000_US - 1):
        validate_save(command(expires_at_us=good), LIMITS)


@pytest.mark.parametrize(
    ("selector", "field"),
    [
        (ByVersion(0), "version"),
        (ByVersion(-1), "version"),
        (ByVersion(2**63), "version"),
        (ById(""), "snapshot_id"),
        (ById("a\0"), "snapshot_id"),
        (ById("x" * 257), "snapshot_id"),
    ],
)
def test_a_selector_can_select_something(selector: Selector, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        validate_selector(selector, LIMITS)
    assert refused.value.field == field


@pytest.mark.parametrize("selector", [Newest(), ByVersion(1), ByVersion(2**63 - 1), ById("x")])
def test_a_good_selector_passes(selector: Selector) -> None:
    validate_selector(selector, LIMITS)


def test_a_page_has_a_size() -> None:
    assert [page_size(n) for n in (0, 1, 50, 1_000, 1_001, 2**31)] == [
        50,
        1,
        50,
        1_000,
        1_000,
        1_000,
    ]
    with pytest.raises(InvalidField) as refused:
        page_size(-1)
    assert refused.value.field == "page_size"
