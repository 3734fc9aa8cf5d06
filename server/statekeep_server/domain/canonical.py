"""The canonical form: equal JSON states give equal bytes, different states different bytes.

The form is compact JSON with sorted keys, written by one codec (docs/canonical-form.md specifies
it). Integers are exact, floats are IEEE doubles, `1` and `1.0` differ, absent and null differ.
The stored state is never the canonical form: it is kept verbatim.

Two readers make the form. The fast one is the codec, which loses three things in silence: a key
named twice, an integer beyond 64 bits, and nesting deeper than it can write. Each has a cheap
test, proven beside it; a text that fails one goes to the exact reader, which either reads it to
the same bytes or says what is wrong with it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson

from statekeep_server.domain.exact_json import read_exactly, too_deep, too_many_members
from statekeep_server.domain.ignored import (
    DEFAULT_IGNORED_FIELDS,
    IgnoredFields,
    compile_ignored,
    merge_ignored,
    prune,
)
from statekeep_server.domain.limits import Limits

__all__ = [
    "CANONICAL_VERSION",
    "DEFAULT_IGNORED_FIELDS",
    "CanonicalState",
    "IgnoredFields",
    "canonicalize",
    "canonicalize_exactly",
    "canonicalize_fast",
    "compile_ignored",
    "merge_ignored",
]

CANONICAL_VERSION = 1
"""Raised with every change of the form, of a codec's output too: hashes of two versions differ."""

SORTED = orjson.OPT_SORT_KEYS

CODEC_DEPTH = 254
"""The nesting that the codec can write. A test watches it."""

DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
LONG_DIGITS = b"0" * 19
LONG_INTEGER = re.compile(rb"(?<![.\d])\d{19}")


@dataclass(frozen=True, slots=True)
class CanonicalState:
    """The canonical form of a JSON state, without what is ignored.

    Attributes:
        data: The whole of it.
        fields: The members of a top-level object, sorted by name, each with its canonical value;
            None for any other value.
    """

    data: bytes
    fields: tuple[tuple[str, bytes], ...] | None


def canonicalize(raw: bytes, *, ignored: IgnoredFields, limits: Limits) -> CanonicalState:
    """Make the canonical form of a JSON text.

    Raises StateNotJson, DuplicateKey, TooDeep, IntegerTooLong or TooManyMembers, as
    `exact_json.read_exactly` says, all for the field `state.data`.
    """
    return canonicalize_fast(raw, ignored, limits) or canonicalize_exactly(raw, ignored, limits)


def canonicalize_exactly(raw: bytes, ignored: IgnoredFields, limits: Limits) -> CanonicalState:
    """Make the canonical form with the exact reader."""
    value = read_exactly(raw, limits)
    if not isinstance(value, dict):
        return _whole(value, _write(value), ignored)
    return _object(value, [(name, _write(value[name])) for name in sorted(value)], ignored)


def canonicalize_fast(raw: bytes, ignored: IgnoredFields, limits: Limits) -> CanonicalState | None:
    """Make the canonical form with the codec; None where it may have lost something.

    Raises TooDeep and TooManyMembers; leaves every other fault to the exact reader.
    """
    if _may_hold_long_integer(raw):
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    try:
        if raw.count(b":") > limits.max_members and _members(_write(value)) > limits.max_members:
            raise too_many_members(limits)
        may_be_deep = raw.count(b"[") + raw.count(b"{") > limits.max_depth
        if not isinstance(value, dict):
            write = _bounded_writer(limits.max_depth) if may_be_deep else _write
            text = write(value)
            return None if _may_name_a_key_twice(raw, text) else _whole(value, text, ignored)
        write = _bounded_writer(limits.max_depth - 1) if may_be_deep else _write
        fields = [(name, write(value[name])) for name in sorted(value)]
    except orjson.JSONEncodeError:  # what the codec has read, it can write, unless it is too deep
        raise too_deep(limits) from None
    if _may_name_a_key_twice(raw, _join(fields)):
        return None
    return _object(value, fields, ignored)


def _whole(value: object, text: bytes, ignored: IgnoredFields) -> CanonicalState:
    if ignored.tree and isinstance(value, list):
        text = _write(prune(value, ignored.tree))
    return CanonicalState(text, None)


def _object(
    value: dict[str, object], fields: Sequence[tuple[str, bytes]], ignored: IgnoredFields
) -> CanonicalState:
    kept: list[tuple[str, bytes]] = []
    for name, text in fields:
        if name in ignored.top:
            continue
        below = ignored.tree.get(name)
        kept.append((name, _write(prune(value[name], below)) if below else text))
    return CanonicalState(_join(kept), tuple(kept))


def _join(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """Write an object of its written members."""
    return b"{" + b",".join([_write(name) + b":" + text for name, text in fields]) + b"}"


def _write(value: object) -> bytes:
    return orjson.dumps(value, option=SORTED)


def _bounded_writer(depth: int) -> Callable[[object], bytes]:
    """Make a writer that fails for values nested deeper than `depth`.

    It writes the value inside as many lists as bring `depth` to the codec's own limit, and takes
    them off again: no pass over the value, and no recursion, is needed to find its depth.
    """
    levels = CODEC_DEPTH - depth
    slot: list[object] = [None]
    cage = slot
    for _ in range(levels - 1):
        cage = [cage]

    def write(value: object) -> bytes:
        if not isinstance(value, dict | list):
            return _write(value)
        slot[0] = value
        return _write(cage)[levels:-levels]

    return write


def _may_hold_long_integer(raw: bytes) -> bool:
    """Whether an integer may be beyond 64 bits: it then has 19 digits in a row or more.

    Digits after a point are those of a fraction, which is a double anyway.
    """
    return LONG_DIGITS in raw.translate(DIGITS_TO_ZERO) and bool(LONG_INTEGER.search(raw))


def _may_name_a_key_twice(raw: bytes, written: bytes) -> bool:
    """Whether the codec may have dropped a member that an object names twice.

    `written` is all that the codec kept, so its colons are those of `raw` less the dropped ones:
    a dropped member takes at least its own colon along. Only a colon that `raw` writes as an
    escape appears anew.
    """
    if raw.count(b":") != written.count(b":"):
        return True
    return b"\\u003" in raw and (b"\\u003a" in raw or b"\\u003A" in raw)


def _members(written: bytes) -> int:
    """Count the members in compact JSON, exactly.

    A quote and a colon end a member's name, unless the quote is escaped. Without the escaped
    backslashes, the quotes after a backslash are the escaped ones.
    """
    plain = written.replace(b"\\\\", b"")
    return plain.count(b'":') - plain.count(b'\\":')
