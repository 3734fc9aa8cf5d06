"""The exact reader: every JSON text to its value, or to the error that says what is wrong with it.

Slower than the codec, and right where the codec is not: integers of any length stay what they
are, a key named twice is found, nothing recurses without a bound. It reads what the fast reader
of `domain.canonical` cannot answer for, and it names the fault of everything that is refused.
"""

import json
from collections import Counter
from typing import NoReturn

import orjson

from statekeep_server.domain.errors import (
    DuplicateKey,
    IntegerTooLong,
    StateNotJson,
    TooDeep,
    TooManyMembers,
)
from statekeep_server.domain.limits import Limits

FIELD = "state.data"

SAFE_DIGITS = 18
"""Integers of so few digits fit 64 bits. Longer ones stay text: no conversion limit applies."""

SHOWN_KEY_CHARACTERS = 64
"""Of a key that is named twice, so much is shown."""

WHITESPACE = " \t\n\r"
NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def read_exactly(raw: bytes, limits: Limits) -> object:
    """Read a JSON text; integers too long for 64 bits become fragments of the codec.

    Raises StateNotJson (metadata `problem`: EMPTY, INVALID_UTF8, LONE_SURROGATE, NOT_A_NUMBER,
    NUMBER_OUT_OF_RANGE or SYNTAX), DuplicateKey, TooDeep, IntegerTooLong or TooManyMembers.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        refuse("INVALID_UTF8", f"byte {error.start} is not valid UTF-8")
    if not text.strip(WHITESPACE):
        refuse("EMPTY", "is empty")
    check_depth(raw, limits)
    if has_too_many(raw, limits):
        limit = limits.max_members
        message = f"has more than {limit} object members, or arrays and objects"
        raise TooManyMembers(FIELD, message, limit=limit)
    value = _Reader(limits).read(text)
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:  # the depth is right: only a surrogate can be the reason
        refuse("LONE_SURROGATE", "a string holds half of a surrogate pair")
    return value


def check_depth(raw: bytes, limits: Limits) -> None:
    """Raise TooDeep for a text that opens more than `max_depth` brackets at once, in one pass."""
    if raw.count(b"[") + raw.count(b"{") <= limits.max_depth:
        return
    depth = 0
    brackets = _outside_strings(raw).translate(None, NOT_BRACKETS)
    # A text with more of them has more arrays and objects than are read, however deep.
    for bracket in brackets[: 2 * limits.max_members + 1]:
        if bracket in b"[{":
            depth += 1
            if depth > limits.max_depth:
                raise too_deep(limits)
        else:
            depth -= 1


def has_too_many(raw: bytes, limits: Limits) -> bool:
    """Whether a JSON text has more object members, or more arrays and objects, than are read.

    Asked before it is read: three bytes of text, an empty array, are 88 in memory.
    """

    def too_many(text: bytes) -> bool:
        containers = text.count(b"[") + text.count(b"{")
        return max(text.count(b":"), containers) > limits.max_members

    return too_many(raw) and too_many(_outside_strings(raw))


def refuse(problem: str, message: str) -> NoReturn:
    """Raise StateNotJson."""
    raise StateNotJson(FIELD, message, problem=problem)


def too_deep(limits: Limits) -> TooDeep:
    """Make the error of a state that is nested too deeply."""
    message = f"is nested more than {limits.max_depth} levels deep"
    return TooDeep(FIELD, message, limit=limits.max_depth)


class _Reader:
    """Reads one text with the standard library's scanner."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=_float,
            parse_constant=_constant,
        )

    def read(self, text: str) -> object:
        try:
            return self._decoder.decode(text)
        except json.JSONDecodeError as error:
            refuse("SYNTAX", f"is not JSON at character {error.pos}")

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise _duplicate([name for name, _ in pairs])
        return members

    def _integer(self, digits: str) -> object:
        size = len(digits) - digits.startswith("-")
        limit = self._limits.max_integer_digits
        if size > limit:
            raise IntegerTooLong(FIELD, f"an integer has more than {limit} digits", limit=limit)
        return int(digits) if size <= SAFE_DIGITS else orjson.Fragment(digits)


def _outside_strings(raw: bytes) -> bytes:
    """Return what stands outside the strings of a JSON text.

    Without the escaped backslashes, and then the escaped quotes, every second quote ends a string.
    In a text that is not JSON this holds up to its first fault, which is as far as it is read.
    """
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(unescaped.split(b'"')[::2])


def _float(digits: str) -> float:
    value = float(digits)
    if value in {float("inf"), float("-inf")}:
        refuse("NUMBER_OUT_OF_RANGE", "a number is beyond the range of a double")
    return value


def _constant(name: str) -> NoReturn:
    refuse("NOT_A_NUMBER", f"{name} is not JSON")


def _duplicate(names: list[str]) -> DuplicateKey:
    name = next(name for name, times in Counter(names).items() if times > 1)
    # A key may hold half of a surrogate pair, which no metadata could carry.
    shown = name[:SHOWN_KEY_CHARACTERS].encode(errors="replace").decode()
    return DuplicateKey(FIELD, "an object names a key twice", key=shown)
