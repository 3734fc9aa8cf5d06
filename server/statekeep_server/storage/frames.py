"""Frames: how a payload is stored. Alone, or as what changed since an earlier one of its run.

A frame is zstd at level 3. With a base, the base's payload is the raw prefix that the frame may
copy from: a conversation that grew by a message costs little more than the message (level 1 finds
almost none of it). A frame that saves nothing is not used: the payload is then stored as it came.

Reading trusts nothing. The frame says its size and it must be the size that the row says; a window
larger than any state needs is refused; every payload on the way is compared with its SHA-256.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import zstandard

IDENTITY = "identity"
"""The payload as it came."""
ZSTD = "zstd"
"""One zstd frame, with the base's payload as raw prefix where the row names one."""

LEVEL = 3

SMALLEST_BYTES = 256
"""Below this a frame's own overhead eats what it saves."""

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""No payload is larger; a row that says so is corrupt."""

MAX_WINDOW_BYTES = 128 * 1024 * 1024
"""Room for a payload and its base at their largest."""


class CorruptFrame(Exception):
    """A frame cannot be read, or gives another payload than was stored."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A stored payload.

    Attributes:
        base_version: The version of the snapshot that it builds on; None when it stands alone.
        base_sha256: The SHA-256 of that snapshot's payload.
        depth: How many frames must be read before this one.
    """

    encoding: str
    data: bytes
    base_version: int | None = None
    base_sha256: bytes | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Base:
    """A payload to build on, and its place in the chain."""

    version: int
    payload: bytes
    sha256: bytes
    depth: int


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame as a row has it, with what the row says of its payload."""

    frame: Frame
    version: int
    state_bytes: int
    state_sha256: bytes


def encode(payload: bytes, base: Base | None = None) -> Frame:
    """Make the frame of a payload, on a base if there is one."""
    if len(payload) < SMALLEST_BYTES:
        return Frame(IDENTITY, payload)
    if base is None:
        data = zstandard.ZstdCompressor(level=LEVEL).compress(payload)
        return Frame(ZSTD, data) if len(data) < len(payload) else Frame(IDENTITY, payload)
    compressor = zstandard.ZstdCompressor(dict_data=_prefix(base.payload), level=LEVEL)
    data = compressor.compress(payload)
    if len(data) >= len(payload):
        return Frame(IDENTITY, payload)
    return Frame(ZSTD, data, base.version, base.sha256, base.depth + 1)


def decode(chain: Sequence[StoredFrame]) -> bytes:
    """Read the payload of the first frame; each following one is the base of the one before.

    Raises CorruptFrame.
    """
    if not chain:
        raise CorruptFrame("there is no frame")
    if chain[-1].frame.base_version is not None:
        raise CorruptFrame("a base is missing")
    payload: bytes | None = None
    for position in range(len(chain) - 1, -1, -1):
        stored = chain[position]
        if payload is not None:
            below = chain[position + 1]
            named = (stored.frame.base_version, stored.frame.base_sha256)
            if named != (below.version, below.state_sha256):
                raise CorruptFrame("a frame names another base")
        payload = _decode_one(stored, payload)
    assert payload is not None  # noqa: S101  # the chain is not empty
    return payload


def _decode_one(stored: StoredFrame, base: bytes | None) -> bytes:
    frame = stored.frame
    if frame.encoding == IDENTITY:
        payload = frame.data
    elif frame.encoding == ZSTD:
        payload = _decompress(frame.data, stored.state_bytes, base)
    else:
        raise CorruptFrame("an unknown encoding")
    if len(payload) != stored.state_bytes or sha256(payload).digest() != stored.state_sha256:
        raise CorruptFrame("the payload does not match its SHA-256")
    return payload


def _decompress(data: bytes, size_bytes: int, base: bytes | None) -> bytes:
    if not 0 <= size_bytes <= MAX_PAYLOAD_BYTES:
        raise CorruptFrame("the payload's size is impossible")
    try:
        # What the frame says is what is allocated: it must be what the row says.
        if zstandard.frame_content_size(data) != size_bytes:
            raise CorruptFrame("the frame's size is not the payload's")
        prefix = None if base is None else _prefix(base)
        decompressor = zstandard.ZstdDecompressor(
            dict_data=prefix, max_window_size=MAX_WINDOW_BYTES
        )
        return decompressor.decompress(data, max_output_size=size_bytes, allow_extra_data=False)
    except zstandard.ZstdError:
        raise CorruptFrame("the frame cannot be read") from None


def _prefix(payload: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(payload, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
