"""The differ agrees with a plain comparison of two states, for any two objects."""

import copy
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from statekeep_server.domain.canonical import (
    MAX_FIELD_CHARACTERS,
    MAX_FIELDS,
    canonicalize,
    compile_ignored,
)
from statekeep_server.domain.differ import changed_fields, encode_digests
from statekeep_server.domain.limits import Limits
from tests.support import canonical_oracle as oracle
from tests.support.json_texts import OBJECTS, VALUES

NAMES = [f"k{n:03}" for n in range(300)] + ["n" * (MAX_FIELD_CHARACTERS + n) for n in range(3)]
WIDE = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2), min_size=0, max_size=303)
FULL = st.sets(st.sampled_from(NAMES), max_size=30).map(
    lambda without: {name: 0 for name in NAMES if name not in without}
)


def digests(state: dict[str, Any], ignored: tuple[str, ...] = ()) -> bytes:
    raw = json.dumps(state).encode()
    made = canonicalize(raw, ignored=compile_ignored(ignored), limits=Limits())
    assert made.fields is not None
    return encode_digests(made.fields, made.rest)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Compare two states field by field."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or not oracle.same(one[name], other[name])
    )


@given(OBJECTS, st.data())
def test_every_change_is_named(before: dict[str, Any], data: st.DataObject) -> None:
    after = copy.deepcopy(before)
    for name in data.draw(st.lists(st.sampled_from([*before, "new"]), max_size=3)):
        if data.draw(st.booleans()):
            after.pop(name, None)
        else:
            after[name] = data.draw(VALUES)
    changes = changed_fields(digests(before), digests(after))
    assert list(changes.names) == differing(before, after)
    assert not changes.truncated
    assert changed_fields(b"", digests(after)).names == tuple(sorted(after))


@given(OBJECTS, OBJECTS, st.lists(st.sampled_from(["a", "b", "/a/b", ":"]), max_size=2).map(tuple))
def test_ignored_fields_are_no_changes(
    before: dict[str, Any], after: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    changes = changed_fields(digests(before, ignored), digests(after, ignored))
    expected = differing(oracle.strip(before, ignored), oracle.strip(after, ignored))
    assert list(changes.names) == expected


def all_without(*without: str) -> dict[str, Any]:
    return {name: 0 for name in NAMES if name not in without}


@settings(max_examples=200)
@given(WIDE | FULL, WIDE | FULL)
# One that has a digest of its own in the first state, and would be in the rest of the second.
@example(all_without(*NAMES[:9]), all_without(*NAMES[:8], "k264"))
def test_what_is_not_named_is_admitted(before: dict[str, Any], after: dict[str, Any]) -> None:
    changes = changed_fields(digests(before), digests(after))
    real = differing(before, after)
    assert set(changes.names) <= set(real)
    assert list(changes.names) == sorted(changes.names)
    if not changes.truncated:
        assert list(changes.names) == real
    certain = {name for name in sorted({*before, *after})[:MAX_FIELDS] if len(name) < 10}
    assert certain & set(real) <= set(changes.names)
