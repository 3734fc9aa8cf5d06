"""The laws of the canonical form, for every JSON value and every way to write it."""

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from statekeep_server.domain.canonical import (
    MAX_FIELD_CHARACTERS,
    MAX_FIELDS,
    canonicalize,
    canonicalize_exactly,
    canonicalize_fast,
    compile_ignored,
)
from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.limits import Limits
from tests.support import canonical_oracle as oracle
from tests.support.json_texts import OBJECTS, RANDOMS, TEXTS, VALUES, spell

LIMITS = Limits()
NOTHING = compile_ignored(())


def form(raw: bytes) -> bytes:
    return canonicalize(raw, ignored=NOTHING, limits=LIMITS).data


@given(VALUES, RANDOMS)
def test_the_form_is_that_of_the_document(value: Any, chance: random.Random) -> None:
    assert form(spell(value, chance)) == oracle.write(value).encode()


@given(VALUES, RANDOMS, RANDOMS)
def test_two_spellings_of_a_value_have_one_form(
    value: Any, one: random.Random, other: random.Random
) -> None:
    assert form(spell(value, one)) == form(spell(value, other))


@given(VALUES, RANDOMS)
def test_the_form_holds_the_value_and_is_its_own_form(value: Any, chance: random.Random) -> None:
    written = form(spell(value, chance))
    assert oracle.same(json.loads(written), value)
    assert form(written) == written


@given(VALUES, VALUES, RANDOMS)
def test_different_values_have_different_forms(one: Any, other: Any, chance: random.Random) -> None:
    equal = form(spell(one, chance)) == form(spell(other, chance))
    assert equal == oracle.same(one, other)


@given(OBJECTS, RANDOMS, st.data())
def test_the_smallest_change_is_a_change(
    value: dict[str, Any], chance: random.Random, data: st.DataObject
) -> None:
    changed = copy.deepcopy(value)
    assume(changed)
    name = data.draw(st.sampled_from(sorted(changed)))
    changed[name] = data.draw(st.sampled_from(neighbours(changed[name])))
    assert form(spell(value, chance)) != form(spell(changed, chance))
    del changed[name]
    assert form(spell(value, chance)) != form(spell(changed, chance))


def neighbours(value: Any) -> list[Any]:
    """Values that a careless comparison takes for `value`."""
    near: list[Any] = [[value], {"": value}, str(value), None, False, 0, 0.0, -0.0, "", [], {}]
    if isinstance(value, int):
        near += [value + 1, -value, value + 2**64]
        near += [float(value)] if abs(value) < 10**300 else []
    if isinstance(value, float) and value.is_integer():
        near += [int(value)]
    return [other for other in near if not oracle.same(other, value)]


@given(VALUES | OBJECTS, RANDOMS)
def test_the_fast_reader_agrees_with_the_exact_one_or_leaves_it_to_it(
    value: Any, chance: random.Random
) -> None:
    raw = spell(value, chance)
    exact = canonicalize_exactly(raw, NOTHING, LIMITS)
    assert canonicalize_fast(raw, NOTHING, LIMITS) in {None, exact}


NEAR_JSON = st.text(st.sampled_from('{}[]",:0123456789.eE+-truefalsn \\u003aAdD8\t'), max_size=40)
BROKEN = st.builds(
    lambda raw, at, junk: raw[: at % (len(raw) + 1)] + junk + raw[at % (len(raw) + 1) :],
    st.builds(spell, VALUES, RANDOMS),
    st.integers(0, 1000),
    st.binary(min_size=1, max_size=3) | st.sampled_from([b"NaN", b'"', b"\\", b"{", b"]", b"\xff"]),
)


@settings(max_examples=400)
@given(NEAR_JSON.map(str.encode) | BROKEN | st.binary(max_size=20))
def test_any_bytes_have_a_form_or_a_named_fault(raw: bytes) -> None:
    tight = Limits(max_depth=3, max_members=3, max_integer_digits=25)
    try:
        exact = canonicalize_exactly(raw, NOTHING, tight)
    except InvalidField:
        with pytest.raises(InvalidField) as refused:
            canonicalize(raw, ignored=NOTHING, limits=tight)
        assert refused.value.field == "state.data"
    else:
        assert canonicalize(raw, ignored=NOTHING, limits=tight) == exact


@given(st.lists(st.tuples(TEXTS, VALUES), min_size=1, max_size=5), RANDOMS)
def test_a_key_named_twice_is_never_dropped_in_silence(
    members: list[tuple[str, Any]], chance: random.Random
) -> None:
    name = chance.choice(members)[0]
    members.insert(chance.randrange(len(members) + 1), (name, None))
    texts = [spell(name, chance) + b":" + spell(value, chance) for name, value in members]
    raw = b'{"outer":[{' + b",".join(texts) + b"}]}"
    with pytest.raises(InvalidField) as refused:
        form(raw)
    assert refused.value.reason == "STATE_DUPLICATE_KEY"


@given(st.integers(1, 40), st.integers(-3, 3), RANDOMS)
def test_both_readers_draw_the_line_of_depth_at_the_same_level(
    limit: int, over: int, chance: random.Random
) -> None:
    limits = Limits(max_depth=limit)
    depth = max(0, limit + over)
    value: Any = chance.choice([1, "[[", {}] if depth else [1, "[["])
    for level in range(depth - isinstance(value, dict)):
        value = [value] if chance.random() < 0.5 else {"}" * (level % 3): value, "[": '{"'}
    padding = b" " * chance.choice([0, 10_000])  # with it the bounded writer is used
    raw = padding + spell(value, chance)
    for read in (canonicalize_fast, canonicalize_exactly):
        if depth <= limit:
            assert read(raw, NOTHING, limits) is not None
        else:
            with pytest.raises(InvalidField, match="levels deep"):
                read(raw, NOTHING, limits)


@given(VALUES, st.integers(0, 12), RANDOMS)
def test_members_and_containers_are_counted_exactly(
    value: Any, limit: int, chance: random.Random
) -> None:
    limits = Limits(max_members=limit)
    raw = spell(value, chance)
    if max(members(value), containers(value)) <= limit:
        canonicalize(raw, ignored=NOTHING, limits=limits)
    else:
        with pytest.raises(InvalidField) as refused:
            canonicalize(raw, ignored=NOTHING, limits=limits)
        assert refused.value.reason == "STATE_TOO_MANY_MEMBERS"


def members(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(members, value.values()))
    return sum(map(members, value)) if isinstance(value, list) else 0


def containers(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + sum(map(containers, value.values() if isinstance(value, dict) else value))


STEPS = st.sampled_from(["a", "b", "*", "0", "1", "", "a/b", "~", "~1", "00"])
NAMES = st.lists(
    STEPS.filter(bool)
    | st.lists(STEPS, min_size=1, max_size=4).map(
        lambda steps: "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    ),
    max_size=5,
).map(tuple)
NESTED: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(STEPS, below, max_size=4),
    max_leaves=25,
)


@settings(max_examples=400)
@given(NESTED, NAMES)
def test_what_is_ignored_is_what_the_document_says(value: Any, names: tuple[str, ...]) -> None:
    before = copy.deepcopy(value)
    ignored = compile_ignored(names)
    raw = json.dumps(value).encode()
    expected = oracle.write(oracle.strip(value, names)).encode()
    for read in (canonicalize_fast, canonicalize_exactly):
        made = read(raw, ignored, LIMITS)
        assert made is not None
        assert made.data == expected
    assert value == before


@given(
    st.sets(st.sampled_from([f"k{n}" for n in range(300)]), min_size=240, max_size=300),
    st.sets(st.integers(MAX_FIELD_CHARACTERS - 1, MAX_FIELD_CHARACTERS + 2)),
    NAMES,
)
def test_fields_and_rest_make_up_the_whole(
    names: set[str], lengths: set[int], ignored: tuple[str, ...]
) -> None:
    value: dict[str, Any] = {name: {"a": [name, {"b": 1}]} for name in names}
    value |= {"n" * length: length for length in lengths}
    value |= {"a": 1, "b": {"a": 2}}
    raw = json.dumps(value).encode()
    kept = oracle.strip(value, ignored)
    for read in (canonicalize_fast, canonicalize_exactly):
        made = read(raw, compile_ignored(ignored), LIMITS)
        assert made is not None
        assert made.fields is not None
        assert made.data == oracle.write(kept).encode()
        fields = {name: json.loads(text) for name, text in made.fields}
        short = sorted(name for name in kept if len(name) <= MAX_FIELD_CHARACTERS)
        assert list(fields) == short[:MAX_FIELDS]
        rest = json.loads(made.rest) if made.rest else {}
        assert made.rest is None or (rest and made.rest == oracle.write(rest).encode())
        assert fields | rest == kept
        assert not fields.keys() & rest.keys()
