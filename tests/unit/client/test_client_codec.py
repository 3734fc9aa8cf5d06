"""States as bytes: what comes back is what went in, or it is refused."""

import enum
import json
import math
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

import orjson
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statekeep import InvalidRequest
from statekeep._codec import decode_json, decode_state, encode_json, encode_state, is_json

# Time is nobody's concern here: these machines may be busy.
LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers() | st.integers(-(10**400), 10**400) | st.integers(2**63 - 2, 2**64 + 2)
SCALARS = (
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, 1 and 1.0, True and 1, 0.0 and -0.0 told apart."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@LAW
@given(VALUES)
def test_every_json_value_comes_back(value: Any) -> None:
    data, content_type = encode_state(value, "")
    assert content_type == "application/json"
    assert same(decode_state(data, content_type, None), value)
    assert same(json.loads(data), value)  # and others read the same


@LAW
@given(VALUES)
def test_encoding_is_the_same_each_time(value: Any) -> None:
    assert encode_json(value) == encode_json(value)


@LAW
@given(VALUES, st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_a_number_that_is_none_is_refused_wherever_it_hides(
    value: Any, number: float, data: st.DataObject
) -> None:
    hidden = data.draw(
        st.sampled_from(
            [[value, number], {"a": value, "b": {"c": number}}, (None, [number, 2**70])]
        )
    )
    with pytest.raises(InvalidRequest) as caught:
        encode_json(hidden)
    assert caught.value.reason == "STATE_NOT_JSON"
    assert caught.value.metadata["problem"] == "NOT_A_NUMBER"


@LAW
@given(st.binary(), st.sampled_from(["", "application/x-pickle", "application/octet-stream"]))
def test_bytes_come_back_verbatim(data: bytes, content_type: str) -> None:
    sent, sent_type = encode_state(data, content_type)
    assert sent == data
    assert sent_type == (content_type or "application/octet-stream")
    assert decode_state(sent, sent_type, None) == data
    for view in (bytearray(data), memoryview(data)):
        assert encode_state(view, content_type) == (data, sent_type)


def test_bytes_that_are_json_stay_as_they_are_and_are_read_as_json() -> None:
    data, content_type = encode_state(b'{ "a" : 1 }', "application/json")
    assert data == b'{ "a" : 1 }'
    assert decode_state(data, content_type, None) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"plan": [{"at": {1, 2}}]}, "/plan/0/at is a set"),
        ({"a/b~c": object()}, "/a~1b~0c is a object"),
        ({"inner": {1: "x"}}, "/inner has the key 1, a int"),
        ({"data": b"x"}, "/data is a bytes"),
        ({"amount": 1j}, "/amount is a complex"),
        (object(), "the state is a object"),
    ],
)
def test_a_type_that_json_has_no_word_for_is_refused_by_its_place(value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        encode_json(value)


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [
        ({"a": [1.0, math.nan]}, "STATE_NOT_JSON", "/a/1 is nan"),
        ({"a": "\ud800"}, "STATE_NOT_JSON", "/a holds half of a surrogate pair"),
        ({"\udfff": 1}, "STATE_NOT_JSON", "surrogate"),
        ({"a": 10**5000}, "STATE_INTEGER_TOO_LONG", "an integer is too long"),
    ],
)
def test_a_value_that_json_cannot_say_is_refused(value: Any, reason: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        encode_json(value)
    assert caught.value.reason == reason
    assert caught.value.field == "state.data"


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def test_depth_is_bounded_by_an_error_and_not_by_a_crash() -> None:
    assert decode_json(encode_json(nested(300))) == nested(300)  # orjson gives up at 254
    endless: list[Any] = []
    endless.append(endless)
    for value in (nested(100_000), endless):
        with pytest.raises(InvalidRequest) as caught:
            encode_json(value)
        assert caught.value.reason == "STATE_TOO_DEEP"


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str):
    __slots__ = ()


class Ratio(float):
    __slots__ = ()


Point = namedtuple("Point", "x y")  # noqa: PYI024  # an untyped one, as states hold them


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        ({"colour": Colour.RED, "level": Level.HIGH}, {"colour": "red", "level": 3}),
        ({Word("key"): Word("value")}, {"key": "value"}),
        ([Ratio(0.5)], [0.5]),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (datetime(2031, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2031-01-02T03:04:05.000006+00:00"),
        ([date(2031, 1, 2), time(3, 4)], ["2031-01-02", "03:04:00"]),
        (time(0, 0, 0, 10_000), "00:00:00.010000"),  # orjson 3.13 says .10000
    ],
)
def test_relatives_of_json_values_become_those(value: Any, plain: Any) -> None:
    assert decode_json(encode_json(value)) == plain
    # A long integer beside it takes the slow way, which must agree.
    assert decode_json(encode_json([2**80, value])) == [2**80, plain]
    assert decode_json(encode_json([None, value])) == [None, plain]


@dataclass
class Inner:
    score: float | None = None


@dataclass
class Outer:
    inner: Inner
    notes: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    score: float | None = None
    items: dict[str, Any] = {}


@pytest.mark.parametrize(
    "value",
    [
        Outer(Inner(math.nan)),
        {"a": Outer(Inner(math.inf))},
        Model(score=math.nan),
        Model(items={"a": [math.inf]}),
        {"a": [Model(items={"a": (1.0, -math.inf)})]},
        Colour,
    ],
)
def test_models_hide_no_numbers_that_are_none(value: Any) -> None:
    with pytest.raises((InvalidRequest, TypeError)):
        encode_json(value)


def test_models_inside_of_states() -> None:
    value = {"outer": Outer(Inner(1.5), ["a"]), "model": Model(score=2.5), "none": None}
    plain = {
        "outer": {"inner": {"score": 1.5}, "notes": ["a"]},
        "model": {"score": 2.5, "items": {}},
        "none": None,
    }
    assert decode_json(encode_json(value)) == plain
    assert decode_json(encode_json({**value, "big": 2**99})) == {**plain, "big": 2**99}


def test_a_quick_state_never_takes_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(value: Any) -> bytes:
        raise AssertionError("slow")

    monkeypatch.setattr("statekeep._codec._encode_slowly", never)
    value = {"text": "null", "none": None, "list": [1, 2.5, True, None, ("x",)], "big": 2**64 - 1}
    assert orjson.loads(encode_json(value)) == {**value, "list": [1, 2.5, True, None, ["x"]]}


def test_nan_in_stored_bytes_is_not_read_as_a_number() -> None:
    with pytest.raises(ValueError, match="NaN"):
        decode_json(b"[12345678901234567890, NaN]")
    with pytest.raises(ValueError, match=r"unexpected|char"):
        decode_json(b"[NaN]")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("", True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.agent+json", True),
        ("application/octet-stream", False),
        ("text/json5", False),
    ],
)
def test_json_is_known_by_its_media_type(content_type: str, expected: bool) -> None:
    assert is_json(content_type) is expected
