"""The differ: which top-level fields of a state changed, known without the state before.

A run's head keeps a short digest of every top-level field of its state, bounded in number and
length: the first 256 names by code point that are not too long have a digest each, all others
share one, that of the rest. Two heads then say exactly which of the named fields were added,
removed or changed, and whether anything changed beyond them. A state that is not a JSON object
is one field with an empty name. Ignored fields never come here.

Digests are 8 bytes: they inform, they decide nothing (the comparison hash does).
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import orjson

from statekeep_server.domain.canonical import MAX_FIELDS
from statekeep_server.domain.values import value_class

ENCODING_VERSION = 1

DIGEST_BYTES = 8

WHOLE = ""
"""The name of the one field of a state that is not a JSON object."""


@value_class()
class Changes:
    """What differs between two states.

    Attributes:
        names: Of the top-level fields that were added, removed or changed, sorted.
        truncated: Whether there are more changes than names.
    """

    names: tuple[str, ...]
    truncated: bool


def encode_digests(fields: Iterable[tuple[str, bytes]], rest: bytes | None = None) -> bytes:
    """Digest the top-level fields of an object: the first with a name each, and the rest.

    Takes what `canonical.CanonicalState` holds. The encoding is a JSON object: `v` the encoding's
    version, `f` the digests by name in hexadecimal, `r` the digest of the rest, if there is one.
    """
    named = {name: _short(sha256(value).digest()) for name, value in fields}
    return _encode(named, None if rest is None else _short(sha256(rest).digest()))


def encode_whole(kind: str, data: bytes) -> bytes:
    """Digest a state that is not a JSON object.

    `kind` tells bytes that are equal and mean different things apart. It comes first and is no
    beginning of a JSON value, so that a field with an empty name is never taken for a whole.
    """
    whole = sha256(kind.encode() + b"\n")
    whole.update(data)
    return _encode({WHOLE: _short(whole.digest())}, None)


def changed_fields(before: bytes, after: bytes) -> Changes:
    """Compare the encoded digests of two states; `before` is empty where there was no state.

    Digests of another encoding version cannot be compared: every field then counts as changed,
    and those that were removed are not known.
    """
    if before == after:
        return Changes((), truncated=False)
    new = _decode(after)
    old = _decode(before) if before else _NOTHING
    if old is None or new is None:
        return Changes(tuple(sorted(new.named)) if new else (), truncated=True)
    # What has a digest in one is not in its rest; with equal rests it is not in the other's either.
    same_rest = old.rest == new.rest
    names = [
        name
        for name in old.named.keys() | new.named.keys()
        if old.named.get(name) != new.named.get(name)
        and (same_rest or (old.knows(name) and new.knows(name)))
    ]
    return Changes(tuple(sorted(names)), truncated=not same_rest)


@value_class()
class _Digests:
    named: Mapping[str, str]
    rest: str | None

    def knows(self, name: str) -> bool:
        """Whether a name that has no digest here is absent, and not in the rest."""
        return name in self.named or len(self.named) < MAX_FIELDS or name < max(self.named)


_NOTHING = _Digests({}, None)


def _short(whole: bytes) -> str:
    return whole[:DIGEST_BYTES].hex()


def _encode(named: Mapping[str, str], rest: str | None) -> bytes:
    encoded: dict[str, object] = {"v": ENCODING_VERSION, "f": named}
    if rest is not None:
        encoded["r"] = rest
    # A copy: what the codec returns keeps all the room that it was written in, 4 kB for 100 bytes,
    # and heads in memory hold on to these.
    return bytes(memoryview(orjson.dumps(encoded)))


def _decode(encoded: bytes) -> _Digests | None:
    """Decode; None for another version."""
    decoded = orjson.loads(encoded)
    if decoded["v"] != ENCODING_VERSION:
        return None
    return _Digests(decoded["f"], decoded.get("r"))
