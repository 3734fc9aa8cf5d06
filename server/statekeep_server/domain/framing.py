"""The framing under every hash of statekeep: how many parts become one digest.

Parts put end to end without a frame collide: `ab` + `c` equals `a` + `bc`. So every part is
preceded by its length, 8 bytes, big-endian, and a digest is

    SHA-256( frame(tag) frame(part 1) frame(part 2) ... )        frame(x) = length(x) x

The tag is a short ASCII text that names what is hashed, so that a hash made for one purpose is
never equal to one made for another. Texts are UTF-8, numbers are decimal ASCII text without
leading zeros. A list of varying length is framed by itself and then stands as one part; a value
that may be absent is the list of none or one.
"""

from collections.abc import Iterable
from hashlib import sha256

LENGTHS = tuple(size.to_bytes(8, "big") for size in range(256))
"""Of short parts, which are nearly all of them."""


def frame(parts: Iterable[bytes]) -> bytes:
    """Put parts end to end, each preceded by its length."""
    pieces: list[bytes] = []
    for part in parts:
        size = len(part)
        pieces.append(LENGTHS[size] if size < len(LENGTHS) else size.to_bytes(8, "big"))
        pieces.append(part)
    return b"".join(pieces)


def digest(tag: str, parts: Iterable[bytes]) -> bytes:
    """Hash framed parts under a tag: 32 bytes."""
    return sha256(frame((tag.encode(), *parts))).digest()


def number(value: int) -> bytes:
    """Write a number as a part."""
    return str(value).encode()


def maybe(value: bytes | None) -> bytes:
    """Write a value that may be absent as a part: absent and empty are different."""
    return b"" if value is None else len(value).to_bytes(8, "big") + value


def texts(values: Iterable[str]) -> bytes:
    """Write a list of texts as a part."""
    return frame(value.encode() for value in values)
