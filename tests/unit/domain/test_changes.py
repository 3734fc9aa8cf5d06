"""The differ: which top-level fields changed, and what a bounded memory cannot tell."""

import tracemalloc

import orjson
import pytest

from statekeep_server.domain.canonical import MAX_FIELDS, canonicalize, compile_ignored
from statekeep_server.domain.differ import (
    Changes,
    changed_fields,
    encode_digests,
    encode_whole,
)
from statekeep_server.domain.limits import Limits

NOTHING = compile_ignored(())


def digests(state: object, *ignored: str) -> bytes:
    made = canonicalize(orjson.dumps(state), ignored=compile_ignored(ignored), limits=Limits())
    assert made.fields is not None
    return encode_digests(made.fields, made.rest)


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ({"a": 1}, {"a": 1}, ()),
        ({"a": 1}, {"a": 2}, ("a",)),
        ({"a": 1}, {"a": 1.0}, ("a",)),
        ({"a": None}, {}, ("a",)),
        ({"a": 1}, {"a": 1, "b": 1}, ("b",)),
        ({"z": 1, "é": 1, "a": 1}, {"z": 2, "é": 2, "a": 2}, ("a", "z", "é")),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, ("a",)),
        ({"": 1}, {"": 2}, ("",)),
    ],
)
def test_fields_that_differ_are_named(
    before: object, after: object, names: tuple[str, ...]
) -> None:
    assert changed_fields(digests(before), digests(after)) == Changes(names, truncated=False)


def test_without_a_head_every_field_changed() -> None:
    assert changed_fields(b"", digests({"b": 1, "a": 2})) == Changes(("a", "b"), truncated=False)
    assert changed_fields(b"", digests({})) == Changes((), truncated=False)


def test_ignored_fields_never_appear() -> None:
    ignored = ("t", "/a/at")
    before = digests({"t": 1, "a": {"at": 1}}, *ignored)
    assert changed_fields(before, digests({"t": 2, "a": {"at": 2}}, *ignored)).names == ()
    assert changed_fields(before, digests({"a": {}}, *ignored)).names == ()


def test_a_state_that_is_no_object_is_one_field_without_a_name() -> None:
    one, other = encode_whole("json", b"5"), encode_whole("json", b"6")
    assert changed_fields(one, other) == Changes(("",), truncated=False)
    assert changed_fields(one, one) == Changes((), truncated=False)
    assert changed_fields(b"", one).names == ("",)
    assert changed_fields(one, encode_whole("opaque", b"5")).names == ("",)
    assert changed_fields(one, digests({"": 5})).names == ("",)
    assert changed_fields(one, digests({"a": 5})).names == ("", "a")


def many(*without: int, more: int = 10) -> dict[str, int]:
    """Make a state of 256 named fields and `more` beyond them."""
    numbers = (n for n in range(MAX_FIELDS + more) if n not in without)
    return {f"k{n:04}": n for n in numbers}


def test_changes_beyond_the_named_fields_are_admitted_and_not_named() -> None:
    before = digests(many())
    assert changed_fields(before, digests(many() | {"k0260": 0})) == Changes((), truncated=True)
    assert changed_fields(before, digests(many() | {"k0003": 0})) == Changes(
        ("k0003",), truncated=False
    )


def test_a_name_that_moved_into_the_rest_did_not_change() -> None:
    """One more name in front pushes the last one out of the named fields."""
    before, after = digests(many()), digests(many() | {"a": 1})
    assert changed_fields(before, after) == Changes(("a",), truncated=True)
    assert changed_fields(after, before) == Changes(("a",), truncated=True)
    shorter = digests(many(0))
    assert changed_fields(before, shorter) == Changes(("k0000",), truncated=True)


def test_long_names_are_in_the_rest() -> None:
    before, after = digests({"n" * 129: 1, "a": 1}), digests({"n" * 129: 2, "a": 1})
    assert changed_fields(before, after) == Changes((), truncated=True)
    assert changed_fields(digests({"a": 1}), before) == Changes((), truncated=True)
    named = changed_fields(digests({"n" * 128: 1}), digests({"n" * 128: 2}))
    assert named == Changes(("n" * 128,), truncated=False)


def test_the_memory_is_small() -> None:
    assert len(digests({"é" * 128 + str(n): n for n in range(5_000)})) < 100
    assert len(digests({f"k{n}": "x" * 100 for n in range(50_000)})) < 8_000


def test_digests_of_another_version_are_not_compared() -> None:
    after = digests({"a": 1})
    other = after.replace(b'"v":1', b'"v":2')
    assert changed_fields(other, after) == Changes(("a",), truncated=True)
    assert changed_fields(after, other) == Changes((), truncated=True)


def test_the_encoding_is_stable() -> None:
    """Heads of older servers hold it: another encoding needs another version."""
    assert digests({"b": 1, "a": 1}) == (
        b'{"v":1,"f":{"a":"6b86b273ff34fce1","b":"6b86b273ff34fce1"}}'
    )
    assert digests({"n" * 129: 1}) == b'{"v":1,"f":{},"r":"0a17052ee705b0ee"}'
    assert encode_whole("json", b"5") == b'{"v":1,"f":{"":"bf5e3b1e61217c22"}}'


def test_digests_in_memory_take_no_more_room_than_their_bytes() -> None:
    """The codec writes into a buffer of kilobytes, and a head in memory would hold on to it."""
    tracemalloc.start()
    try:
        kept = [digests({"step": step, "goal": "book"}) for step in range(100)]
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 3 * sum(map(len, kept))
