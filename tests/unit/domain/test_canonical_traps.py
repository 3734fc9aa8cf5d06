"""The traps of JSON: what careless readers make equal, lose, accept or fall over."""

import sys
from collections.abc import Iterator

import orjson
import pytest

from statekeep_server.domain import canonical, exact_json
from statekeep_server.domain.canonical import (
    DEFAULT_IGNORED_FIELDS,
    canonicalize,
    canonicalize_exactly,
    canonicalize_fast,
    compile_ignored,
)
from statekeep_server.domain.errors import (
    DuplicateKey,
    IntegerTooLong,
    InvalidField,
    StateNotJson,
    TooDeep,
    TooManyMembers,
)
from statekeep_server.domain.limits import CODEC_DEPTH, Limits

LIMITS = Limits()
NOTHING = compile_ignored(())
DEFAULT = compile_ignored(DEFAULT_IGNORED_FIELDS)


def form(raw: str | bytes, limits: Limits = LIMITS) -> bytes:
    text = raw.encode() if isinstance(raw, str) else raw
    return canonicalize(text, ignored=NOTHING, limits=limits).data


def fault(raw: str | bytes, limits: Limits = LIMITS) -> InvalidField:
    with pytest.raises(InvalidField) as refused:
        form(raw, limits)
    assert refused.value.field == "state.data"
    return refused.value


@pytest.fixture
def low_conversion_limit() -> Iterator[None]:
    """Let the process convert integers of 640 digits only, the least that it can be set to."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


# Different states.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", '"1"'),
        ("1", "true"),
        ("0", "false"),
        ("0", "-0.0"),
        ("0.0", "-0.0"),
        ("9007199254740992", "9007199254740993"),  # 2^53 and the next: one double
        ("18446744073709551616", "18446744073709551617"),  # 2^64: the codec reads both as a double
        ("18446744073709551616", "18446744073709551616.0"),
        ("-9223372036854775809", "-9223372036854775810"),
        ("10000000000000000", "1e16"),
        ("1" + "0" * 400, "1" + "0" * 399 + "1"),  # beyond the range of a double
        ('{"a":null}', "{}"),
        ('{"a":[]}', '{"a":{}}'),
        ("[1,2]", "[2,1]"),
        ("[[1],2]", "[1,[2]]"),
        ('{"a":1,"b":2}', '{"a":2,"b":1}'),
        ('{"a:b":1}', '{"a":"b:1"}'),
        ('"é"', '"e\u0301"'),  # the same to the eye: no normalisation
        ('"a"', '"A"'),
        ('""', "null"),
        ('"\\u0000"', '""'),
        ('"<now>"', '"<then>"'),
    ],
)
def test_different_states_have_different_forms(one: str, other: str) -> None:
    assert form(one) != form(other)
    assert form(f'{{"deep":[{one}]}}') != form(f'{{"deep":[{other}]}}')


# Equal states.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1e2", "100.0"),
        ("1E+2", "100.00"),
        ("0.1", "0.1000000000000000055511151231257827"),
        ("1e-400", "0.0"),
        ("-0", "0"),
        ('{"a":1,"b":2}', ' {\n"b" : 2,\t"a":1}\r\n'),
        ('"é"', '"\\u00e9"'),
        ('"😀"', '"\\uD83D\\uDE00"'),
        ('"a/b"', '"a\\/b"'),
        ('{"a:":1}', '{"a\\u003a":1}'),
        ('{"a:":1}', '{"a\\u003A":1}'),
        ("[1" + "0" * 30 + "]", " [ 1" + "0" * 30 + " ] "),
    ],
)
def test_equal_states_have_one_form(one: str, other: str) -> None:
    assert form(one) == form(other)
    assert form(f'{{"deep":[{one}]}}') == form(f'{{"deep":[{other}]}}')


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (
            '{"b":1,"a":2,"":3,"B":4,"é":5,"\U00010000":6,"\uffff":7}',
            '{"":3,"B":4,"a":2,"b":1,"é":5,"\uffff":7,"\U00010000":6}',
        ),
        (
            '"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\\\/\\u007f\\u2028"',
            '"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\/\x7f\u2028"',
        ),
        ("[1e16,1e15,1e-5,1e-6]", "[1e+16,1000000000000000.0,0.00001,1e-6]"),
        ("[5e-324,1.7976931348623157e308]", "[5e-324,1.7976931348623157e+308]"),
        ("[-0.0,-0]", "[-0.0,0]"),
        ("12345678901234567890123", "12345678901234567890123"),
    ],
)
def test_the_form_is_written_like_this(raw: str, written: str) -> None:
    assert form(raw).decode() == written


# Refused states.


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("NaN", "NOT_A_NUMBER"),
        ("[Infinity]", "NOT_A_NUMBER"),
        ('{"a":-Infinity}', "NOT_A_NUMBER"),
        ("1e400", "NUMBER_OUT_OF_RANGE"),
        ("[-1E400]", "NUMBER_OUT_OF_RANGE"),
        ("1" * 400 + ".0", "NUMBER_OUT_OF_RANGE"),
        (b'"\xff"', "INVALID_UTF8"),
        (b'"\xc0\xaf"', "INVALID_UTF8"),  # an overlong slash
        (b'"\xed\xa0\x80"', "INVALID_UTF8"),  # a surrogate in UTF-8
        (b'"\xf4\x90\x80\x80"', "INVALID_UTF8"),  # beyond Unicode
        ('{"a":1}'.encode("utf-16"), "INVALID_UTF8"),
        ('"\\ud800"', "LONE_SURROGATE"),
        ('{"a":["\\udfff\\ud800"]}', "LONE_SURROGATE"),
        ('{"\\uD800":1}', "LONE_SURROGATE"),
        ("", "EMPTY"),
        (" \t\r\n", "EMPTY"),
        (b"\xef\xbb\xbf{}", "SYNTAX"),  # a byte order mark
        ("{", "SYNTAX"),
        ("[1,]", "SYNTAX"),
        ("{'a':1}", "SYNTAX"),
        ("01", "SYNTAX"),
        ("1.", "SYNTAX"),
        (".5", "SYNTAX"),
        ("+1", "SYNTAX"),
        ("0x10", "SYNTAX"),
        ("nan", "SYNTAX"),
        ("1 2", "SYNTAX"),
        ('"\t"', "SYNTAX"),  # a bare control character
        ('"\\x41"', "SYNTAX"),
        ("\x00", "SYNTAX"),
        ("{1:2}", "SYNTAX"),
        ("// a comment\n1", "SYNTAX"),
        ("]" * 200 + "[", "SYNTAX"),
        ("\u00a01", "SYNTAX"),  # white space elsewhere, not in JSON
    ],
)
def test_what_is_not_json_is_refused(raw: str | bytes, problem: str) -> None:
    error = fault(raw)
    assert type(error) is StateNotJson
    assert error.metadata == {"field": "state.data", "problem": problem}


@pytest.mark.parametrize(
    "raw",
    [
        '{"a":1,"a":1}',
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        '[{"b":{"a":":","c":0,"a":null}}]',
        '{"timestamp":1,"a":2,"timestamp":3}',  # an ignored field is still a field
        '{"a":"\\u003a","a":2}',  # the escaped colon makes up for the dropped one
        '{"a":1,"a":"\\u003a\\u003A"}',
        '{"a":123456789012345678901234567890,"a":1}',
    ],
)
def test_a_key_named_twice_is_refused(raw: str) -> None:
    with pytest.raises(DuplicateKey) as refused:
        canonicalize(raw.encode(), ignored=DEFAULT, limits=LIMITS)
    assert refused.value.metadata["key"] in {"a", "timestamp"}


def test_a_long_or_broken_key_is_shown_in_part() -> None:
    long = "k" * 1000
    assert fault(f'{{"{long}":1,"{long}":2}}').metadata["key"] == "k" * 64
    assert fault('{"\\ud800":1,"\\ud800":2}').metadata["key"] == "?"


def nested(depth: int, opening: str = "[", inner: str = "") -> str:
    closing = {"[": "]", '{"a":': "}"}[opening]
    return opening * depth + inner + closing * depth


def test_a_state_may_be_nested_so_deep() -> None:
    for raw in (nested(128), nested(128, '{"a":', "1"), nested(127, '{"a":', "[]")):
        assert form(raw) == raw.encode()
        assert form(raw.replace("]", " " * 9_000 + "]", 1)) == raw.encode()


@pytest.mark.parametrize("depth", [129, 254, 255, 1_024, 1_025, 100_000])
@pytest.mark.parametrize(("opening", "inner"), [("[", ""), ('{"a":', "1")])
def test_a_depth_bomb_is_refused(depth: int, opening: str, inner: str) -> None:
    for raw in (nested(depth, opening, inner), nested(depth, opening, "9" * 30), opening * depth):
        error = fault(raw)
        assert type(error) is TooDeep
        assert error.metadata == {"field": "state.data", "limit": "128"}


def test_a_state_with_many_brackets_is_not_deep() -> None:
    raw = '{"a":1,"b":' + "[" + ",".join(["[]"] * 5_000) + '],"c":"x","d":' + nested(127) + "}"
    assert form(raw) == raw.encode()


def test_brackets_in_strings_are_not_depth() -> None:
    text = '["' + "[{" * 1_000 + '\\"' + "[" * 1_000 + '\\\\","' + "[" * 1_000 + '"]'
    assert form(text) == text.encode()
    assert form(text.replace("]", ",12345678901234567890]")).startswith(b'["[{')


def test_the_codec_writes_as_deep_as_we_think() -> None:
    value: list[object] = []
    for _ in range(CODEC_DEPTH - 1):
        value = [value]
    assert orjson.dumps(value)
    with pytest.raises(orjson.JSONEncodeError):
        orjson.dumps([value])


@pytest.mark.parametrize("limit", [1, 2, CODEC_DEPTH - 2, CODEC_DEPTH - 1])
def test_any_depth_that_the_codec_can_write_may_be_the_limit(limit: int) -> None:
    limits = Limits(max_depth=limit)
    for padding in ("", " " * 9_000):
        for inner in ("[]", '{"a":1}'):
            raw = nested(limit - 1, "[", inner)
            assert form(raw + padding, limits) == raw.encode()
            assert fault(f"[{raw}]" + padding, limits).reason == "STATE_TOO_DEEP"
            raw = nested(limit - 1, '{"a":', inner)
            assert form(raw + padding, limits) == raw.encode()
            assert fault(f'{{"a":{raw}}}' + padding, limits).reason == "STATE_TOO_DEEP"


@pytest.mark.parametrize("limit", [0, CODEC_DEPTH])
def test_no_other_depth_may_be_the_limit(limit: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        Limits(max_depth=limit)


def test_integers_have_so_many_digits(low_conversion_limit: None) -> None:
    assert form("9" * 4_300) == b"9" * 4_300
    assert form("-" + "9" * 4_300) == b"-" + b"9" * 4_300
    for raw in ("9" * 4_301, "[-" + "9" * 4_301 + "]", '{"a":' + "1" * 100_000 + "}"):
        error = fault(raw)
        assert type(error) is IntegerTooLong
        assert error.metadata == {"field": "state.data", "limit": "4300"}


def test_too_many_tiny_keys_are_refused() -> None:
    raw = "{" + ",".join(f'"{n:x}":1' for n in range(100_001)) + "}"
    for state in (raw, f"[{raw}]", raw.replace(":1,", ":12345678901234567890,", 1)):
        error = fault(state)
        assert type(error) is TooManyMembers
        assert error.metadata == {"field": "state.data", "limit": "100000"}
    assert form(raw.replace('"0":1,', "")).count(b":") == 100_000


@pytest.mark.parametrize("tiny", ["[]", "{}"])
def test_too_many_tiny_containers_are_refused_before_they_are_read(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = "[" + ",".join([tiny] * 99_999) + "]"
    assert form(raw) == raw.encode()
    monkeypatch.setattr(orjson, "loads", None)
    monkeypatch.setattr(exact_json, "_Reader", None)
    error = fault(raw.replace(tiny, f"{tiny},{tiny}", 1))
    assert type(error) is TooManyMembers
    assert error.metadata == {"field": "state.data", "limit": "100000"}


def test_the_depth_of_too_many_containers_is_not_walked_through() -> None:
    limits = Limits(max_members=3, max_depth=4)
    assert fault("[[],[],[],[[[[[]]]]]]", limits).reason == "STATE_TOO_MANY_MEMBERS"
    assert fault("[[[[[", limits).reason == "STATE_TOO_DEEP"


def test_members_are_counted_and_colons_are_not() -> None:
    limits = Limits(max_members=3)
    assert form('{"a":"::::","b":["x:y",{":":0}]}', limits)
    assert fault('{"a":{"b":{"c":{"d":1}}}}', limits).reason == "STATE_TOO_MANY_MEMBERS"


# Which reader reads.


@pytest.mark.parametrize(
    "raw",
    [
        '{"id":"1234567890123456789012"}',  # digits in a string
        "[0.0001234567890123456789]",  # digits of a fraction
        '{"at":"12:30:00","url":"http://x"}',
        '{"a:b":{"c:d":1}}',
        "[123456789012345678]",
        '{"html":"\\u003cb\\u003e"}',
    ],
)
def test_ordinary_states_are_read_fast(raw: str) -> None:
    assert canonicalize_fast(raw.encode(), NOTHING, LIMITS)


@pytest.mark.parametrize(
    "raw",
    [
        b"1234567890123456789",
        b"-1234567890123456789",
        b"[0,1234567890123456789]",
        b"[1234567890123456789]",
        b'{"a":1234567890123456789}',
        b'{"a":\n1234567890123456789}',
        b'{"a":\t1234567890123456789}',
        b'{"a":\r1234567890123456789}',
        b'{"a": 1234567890123456789}',
        b'{"a\\u003a":1}',
        b'{"a":1,"a":1}',
        b"NaN",
    ],
)
def test_doubtful_states_are_read_exactly(raw: bytes) -> None:
    assert canonicalize_fast(raw, NOTHING, LIMITS) is None


def test_a_lossy_fast_reader_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above depend on the doubts of the fast reader: without them they would fail."""
    monkeypatch.setattr(canonical, "_may_hold_long_integer", lambda _: False)
    monkeypatch.setattr(canonical, "_is_all", lambda *_: True)
    assert form("18446744073709551616") == form("18446744073709551617")
    assert form('{"a":1,"a":2}') == form('{"a":2}')


def test_both_readers_write_large_objects_alike() -> None:
    raw = b"{" + b",".join(b'"k%d":{"at":%d}' % (n, n) for n in range(400)) + b"}"
    ignored = compile_ignored(["k7", "/k8/at"])
    made = canonicalize(raw, ignored=ignored, limits=LIMITS)
    assert made == canonicalize_exactly(raw, ignored, LIMITS)
    assert made.fields is not None
    assert len(made.fields) == 256
    assert made.rest is not None
    assert b'"k7"' not in made.data
    assert b'"k8":{}' in made.data
