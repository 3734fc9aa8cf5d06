"""The canonical form: equal JSON states give equal bytes, different states different bytes.

The form is compact JSON with sorted keys, written by one codec (docs/canonical-form.md specifies
it). Integers are exact, floats are IEEE doubles, `1` and `1.0` differ, absent and null differ.
The stored state is never the canonical form: it is kept verbatim.

Two readers make the form. The fast one is the codec, which loses three things in silence: a key
named twice, an integer beyond 64 bits, and nesting deeper than it can write. Each has a cheap
test, proven beside it; a text that fails one goes to the exact reader, which either reads it to
the same bytes or says what is wrong with it.
"""

from collections.abc import Callable, Iterable
from typing import TypeGuard

import orjson

from statekeep_server.domain.exact_json import (
    has_too_many,
    read_exactly,
    too_deep,
)
from statekeep_server.domain.ignored import (
    DEFAULT_IGNORED_FIELDS,
    IgnoredFields,
    compile_ignored,
    merge_ignored,
    prune,
    prune_object,
)
from statekeep_server.domain.limits import CODEC_DEPTH, Limits
from statekeep_server.domain.values import value_class

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

NUMBER_SHAPES = bytes.maketrans(b"123456789[,:-\t\n\r", b"000000000" + b" " * 7)
"""Every digit becomes 0; all that can stand right before a number becomes a space."""

LONG_DIGITS = b"0" * 19

OTHERS = bytes(byte for byte in range(256) if byte not in b"[{:")
"""All that is no opening bracket and no colon: it takes one pass to be rid of them."""

MAX_FIELDS = 256
"""Fields of a state that are told apart. States of agents have tens of them; an object that is
keyed by user data may have any number, and each would cost a call of the codec."""

MAX_FIELD_CHARACTERS = 128
"""Longer names are those of data, not of fields."""


@value_class()
class CanonicalState:
    """The canonical form of a JSON state, without what is ignored.

    Attributes:
        data: The whole of it.
        fields: The first `MAX_FIELDS` members of a top-level object, sorted by name, whose names
            are no longer than `MAX_FIELD_CHARACTERS`, each with its canonical value. None for a
            value that is not an object.
        rest: The canonical object of all other members; None where there are none.
    """

    data: bytes
    fields: tuple[tuple[str, bytes], ...] | None
    rest: bytes | None = None


def canonicalize(raw: bytes, *, ignored: IgnoredFields, limits: Limits) -> CanonicalState:
    """Make the canonical form of a JSON text.

    Raises StateNotJson, DuplicateKey, TooDeep, IntegerTooLong or TooManyMembers, as
    `exact_json.read_exactly` says, all for the field `state.data`.
    """
    return canonicalize_fast(raw, ignored, limits) or canonicalize_exactly(raw, ignored, limits)


def canonicalize_exactly(raw: bytes, ignored: IgnoredFields, limits: Limits) -> CanonicalState:
    """Make the canonical form with the exact reader."""
    value = read_exactly(raw, limits)
    if _is_small(value):
        return _small_object(value, _fields(value, _write), ignored)
    return _other(value, ignored)


def canonicalize_fast(raw: bytes, ignored: IgnoredFields, limits: Limits) -> CanonicalState | None:
    """Make the canonical form with the codec; None where it may have lost something.

    Raises TooDeep; leaves every other fault to the exact reader.
    """
    structure = raw.translate(None, OTHERS)
    colons = structure.count(b":")
    # Texts hold brackets and colons too: no value is nested more deeply than this.
    brackets = len(structure) - colons
    if max(colons, brackets) > limits.max_members and has_too_many(raw, limits):
        return None
    if _may_hold_long_integer(raw):
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    try:
        if not _is_small(value):
            written = [_writer_for(brackets, limits.max_depth)(value)]
            return _other(value, ignored) if _is_all(written, raw, colons) else None
        fields = _fields(value, _writer_for(brackets, limits.max_depth - 1))
    except orjson.JSONEncodeError:  # what the codec has read, it can write, unless it is too deep
        raise too_deep(limits) from None
    colons -= len(fields) + sum([name.count(":") for name, _ in fields])
    if not _is_all([text for _, text in fields], raw, colons):
        return None
    return _small_object(value, fields, ignored)


def _is_small(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a value is an object with so few members that each is written for itself."""
    return isinstance(value, dict) and len(value) <= MAX_FIELDS


def _fields(value: dict[str, object], write: Callable[[object], bytes]) -> list[tuple[str, bytes]]:
    return [(name, write(value[name])) for name in sorted(value)]


def _small_object(
    value: dict[str, object], fields: Iterable[tuple[str, bytes]], ignored: IgnoredFields
) -> CanonicalState:
    """Put the form together from the written members: no member is written twice."""
    kept: list[tuple[str, bytes]] = []
    long: list[tuple[str, bytes]] = []
    for name, text in fields:
        if name in ignored.top:
            continue
        below = ignored.tree.get(name)
        kept.append((name, _write(prune(value[name], below)) if below else text))
        if len(name) > MAX_FIELD_CHARACTERS:
            long.append(kept[-1])
    if not long:
        return CanonicalState(_join(kept), tuple(kept))
    short = tuple(field for field in kept if len(field[0]) <= MAX_FIELD_CHARACTERS)
    return CanonicalState(_join(kept), short, _join(long))


def _other(value: object, ignored: IgnoredFields) -> CanonicalState:
    """Write a value that is no object, or an object with many members."""
    if not isinstance(value, dict):
        return CanonicalState(_write(prune(value, ignored.tree)), None)
    members = {name: value[name] for name in value.keys() - ignored.top}
    kept = prune_object(members, ignored.tree)
    names = sorted(name for name in kept if len(name) <= MAX_FIELD_CHARACTERS)[:MAX_FIELDS]
    fields = tuple((name, _write(kept[name])) for name in names)
    rest = {name: kept[name] for name in kept.keys() - set(names)}
    return CanonicalState(_write(kept), fields, _write(rest) if rest else None)


def _join(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """Write an object of its written members."""
    return b"{" + b",".join([_write(name) + b":" + text for name, text in fields]) + b"}"


def _write(value: object) -> bytes:
    return orjson.dumps(value, option=SORTED)


def _writer_for(brackets: int, depth: int) -> Callable[[object], bytes]:
    """Choose the writer of a text with so many brackets: bounded, unless they are too few."""
    return _write if brackets <= depth else _bounded_writer(depth)


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
    """Whether an integer may be beyond 64 bits: it then begins with 19 digits.

    Only the beginning of a number counts: longer fractions are doubles anyway, and digits right
    after a quote are text.
    """
    shapes = raw.translate(NUMBER_SHAPES)
    return b" " + LONG_DIGITS in shapes or shapes.startswith(LONG_DIGITS)


def _is_all(written: Iterable[bytes], raw: bytes, colons: int) -> bool:
    """Whether the codec kept all members, and dropped none that an object names twice.

    What it kept has the colons of `raw` less those of the dropped members, and each of these had
    at least the one after its name. Only a colon that `raw` writes as an escape would appear anew
    and could make up for it. `colons` are those that should appear in `written`.
    """
    if sum([text.count(b":") for text in written]) != colons:
        return False
    if b"\\" not in raw or b"\\u003" not in raw:
        return True
    return b"\\u003a" not in raw and b"\\u003A" not in raw
