"""States as bytes, and back, exactly.

A state is JSON or bytes. JSON means: null, booleans, integers of any size, finite floats, text,
lists and tuples, and dicts with text keys. Dataclasses and pydantic models become objects, enums
their values, UUIDs and times of `datetime` their ISO text. Everything else is refused: a state
that comes back different from what was saved would be worse than an error.

orjson does the work where it is exact. It writes NaN as null and reads integers beyond 64 bits as
floats; such states take the slower way through the standard library.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Never
from uuid import UUID

import orjson

from statekeep._errors import InvalidRequest
from statekeep._models import (
    build,
    dump_fields,
    is_dataclass_value,
    is_model,
    is_model_class,
    validate_json,
)

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"

# Every digit becomes 0 and everything else a space: a run of zeros is then found at C speed.
_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19
"""Integers of 64 bits have 19 digits; what has as many may have more."""

# The fields of dataclasses and the text of times are ours: orjson 3.13 loses zeros of a `time`.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

Path = tuple[str | int, ...]


def encode_state(state: Any, content_type: str) -> tuple[bytes, str]:
    """Give the bytes of a state and their media type.

    Bytes go out verbatim, as `application/octet-stream` unless said otherwise; everything else
    as JSON.

    Raises:
        InvalidRequest: The state holds something that JSON cannot say: NaN, an infinity, a lone
            surrogate, too long an integer, too deep a nesting.
        TypeError: The state holds a value of a type that is not one of a state.
    """
    if isinstance(state, bytes | bytearray | memoryview):
        return bytes(state), content_type or BYTES_TYPE
    if content_type and not is_json(content_type):
        raise TypeError(f"a state of content type {content_type!r} is given as bytes")
    return encode_json(state), content_type or JSON_TYPE


def decode_state(data: bytes, content_type: str, as_: Callable[..., Any] | None) -> Any:
    """Give the value of stored bytes: JSON decoded, everything else as it is.

    `as_` is a dataclass, a pydantic model, or any callable that makes one of the decoded value.
    """
    if not is_json(content_type):
        return data if as_ is None else as_(data)
    if as_ is None:
        return decode_json(data)
    if is_model_class(as_):
        return validate_json(as_, data)
    if dataclasses.is_dataclass(as_) and isinstance(as_, type):
        return build(as_, decode_json(data))
    return as_(decode_json(data))


def is_json(content_type: str) -> bool:
    """Whether a media type is JSON; the empty one is."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in {"", JSON_TYPE} or media_type.endswith("+json")


def encode_json(value: Any) -> bytes:
    """Encode a value once, exactly or not at all."""
    if is_model(value):
        return _encode_model(value)
    try:
        data = orjson.dumps(value, default=_as_json, option=_OPTIONS)
    except orjson.JSONEncodeError:
        return _encode_slowly(value)  # which says where and why, or is able to
    if b"null" in data and not _surely_finite(value):
        return _encode_slowly(value)
    return data


def decode_json(data: bytes) -> Any:
    """Decode JSON with every integer exact."""
    if _LONG_NUMBER in data.translate(_DIGITS):
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    return orjson.loads(data)


def _as_json(value: Any) -> Any:
    """Help orjson with what it does not know."""
    if is_dataclass_value(value):
        return dump_fields(value)
    if is_model(value):
        return orjson.Fragment(_encode_model(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError


def _encode_model(model: Any) -> bytes:
    """Encode a pydantic model as itself says; NaN, which it writes as null, is refused."""
    data: bytes = model.model_dump_json(by_alias=True, round_trip=True).encode()
    if b"null" in data:
        _refuse_non_finite(model.model_dump(by_alias=True, round_trip=True))
    return data


def _surely_finite(value: Any) -> bool:
    """Whether no NaN can be behind a null. False where it would take more than a quick look."""
    rest = [value]
    while rest:
        item = rest.pop()
        kind = type(item)
        if kind is dict:
            rest.extend(item.values())
        elif kind is list or kind is tuple:
            rest.extend(item)
        elif kind is float:
            if not math.isfinite(item):
                return False
        elif kind is not str and kind is not int and kind is not bool and item is not None:
            return False
    return True


def _refuse_non_finite(dumped: Any) -> None:
    rest: list[tuple[Any, Path]] = [(dumped, ())]
    while rest:
        item, path = rest.pop()
        if isinstance(item, dict):
            rest.extend((value, (*path, str(key))) for key, value in item.items())
        elif isinstance(item, list | tuple | set | frozenset):
            rest.extend((value, (*path, index)) for index, value in enumerate(item))
        elif isinstance(item, float) and not math.isfinite(item):
            _refuse_number(item, path)


def _encode_slowly(value: Any) -> bytes:
    """Encode with the standard library, which knows long integers, after a check of everything."""
    try:
        plain = _plain(value, ())
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidRequest.of_field(
            "state.data", "nested too deeply, or in itself", reason="STATE_TOO_DEEP"
        ) from None
    except InvalidRequest:
        raise
    except ValueError as error:  # Python writes no integer that it would refuse to read
        raise InvalidRequest.of_field(
            "state.data", f"an integer is too long ({error})", reason="STATE_INTEGER_TOO_LONG"
        ) from error
    return text.encode()


def _plain(value: Any, path: Path) -> Any:
    """Turn a value into plain dicts, lists, text, numbers and None, or refuse it by its place."""
    if isinstance(value, Enum):
        return _plain(value.value, path)
    if value is None or isinstance(value, bool | str | int | float):
        return _plain_scalar(value, path)
    if isinstance(value, dict):
        return _plain_object(value, path)
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if is_dataclass_value(value):
        return _plain_object(dump_fields(value), path)
    if is_model(value):
        return decode_json(_encode_model(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(
        f"state.data: {_pointer(path)} is a {type(value).__qualname__}, which JSON has no word "
        "for: convert it, or use a model that does"
    )


def _plain_scalar(value: bool | str | float | None, path: Path) -> bool | str | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, int):
        return int(value)  # a subclass may print itself as it likes
    return float(value) if math.isfinite(value) else _refuse_number(value, path)


def _plain_object(value: dict[Any, Any], path: Path) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            kind = type(key).__qualname__
            raise TypeError(f"state.data: {_pointer(path)} has the key {key!r}, a {kind}, not text")
        plain[_plain_text(key, path)] = _plain(item, (*path, str.__str__(key)))
    return plain


def _plain_text(value: str, path: Path) -> str:
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise InvalidRequest.of_field(
            "state.data",
            f"{_pointer(path)} holds half of a surrogate pair, which UTF-8 cannot say",
            reason="STATE_NOT_JSON",
            problem="LONE_SURROGATE",
        ) from None
    return plain


def _refuse_number(value: float, path: Path) -> Never:
    raise InvalidRequest.of_field(
        "state.data",
        f"{_pointer(path)} is {value}, which JSON has no number for",
        reason="STATE_NOT_JSON",
        problem="NOT_A_NUMBER",
    )


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _pointer(path: Path) -> str:
    """Write a place as a JSON Pointer (RFC 6901), for people."""
    if not path:
        return "the state"
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in parts).encode("ascii", "backslashreplace").decode()
