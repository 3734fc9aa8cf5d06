"""Frames: how a payload is stored. Alone, or as what changed since an earlier one of its run.

A frame is zstd at level 3. With a base, the base's payload is the raw prefix that the frame may
copy from: a conversation that grew by a message costs little more than the message (level 1 finds
almost none of it). A frame that saves nothing is not used: the payload is then stored as it came.

Reading trusts nothing. A frame says its size and it must be the size that the row says; a window
larger than any state needs is refused; and what comes out at the end of a chain is compared with
the SHA-256 that was saved. What comes out on the way is not: a wrong payload in between cannot
give the right one at the end, and hashing each would cost more than reading it.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

import zstandard

from statekeep_server.domain.values import value_class

IDENTITY = "identity"
"""The payload as it came."""
ZSTD = "zstd"
"""One zstd frame, with the base's payload as raw prefix where the row names one."""

LEVEL = 3

SMALLEST_BYTES = 256
"""Below this a frame's own overhead eats what it saves."""

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""No payload is larger; a row that says so is corrupt."""

MAX_WINDOW_LOG = 27
"""Room for a payload and its base at their largest."""

LARGE_BASE_BYTES = 1024 * 1024
"""The tables of level 3 hold the places of so much of a prefix, and forget what comes before it."""

MAX_TABLE_LOG = 21
"""Of larger tables: 8 bytes of prefix for each entry, so 16 MiB, which take 16 MiB for a moment."""


class CorruptFrame(Exception):
    """A frame cannot be read, or gives another payload than was stored."""


@value_class()
class Frame:
    """A payload as it is to be stored.

    Attributes:
        base_version: The version of the snapshot that it builds on; None when it stands alone.
        depth: How many frames must be read before this one.
    """

    encoding: str
    data: bytes
    base_version: int | None = None
    depth: int = 0


@value_class()
class Base:
    """A payload to build on, and its place in the chain.

    Attributes:
        chain_bytes: Of the payloads that must be read for this one, with its own.
        expires_at_us: When it may go; None for never.
    """

    version: int
    payload: bytes
    depth: int
    chain_bytes: int
    expires_at_us: int | None = None


class StoredFrame(NamedTuple):
    """A frame as a row has it, with the size of its payload.

    A tuple, because a load makes one for each frame of its chain.
    """

    version: int
    state_bytes: int
    encoding: str
    base_version: int | None
    data: bytes


def encode(payload: bytes, base: Base | None = None) -> Frame:
    """Make the frame of a payload, on a base if there is one."""
    if len(payload) < SMALLEST_BYTES:
        return Frame(IDENTITY, payload)
    if base is None:
        data = zstandard.ZstdCompressor(level=LEVEL).compress(payload)
        return Frame(ZSTD, data) if len(data) < len(payload) else Frame(IDENTITY, payload)
    data = _compressor(base.payload, len(payload)).compress(payload)
    if len(data) >= len(payload):
        return Frame(IDENTITY, payload)
    return Frame(ZSTD, data, base.version, base.depth + 1)


def decode(
    chain: Sequence[StoredFrame],
    state_sha256: bytes,
    known: Callable[[int], bytes | None] = lambda _version: None,
) -> bytes:
    """Read the payload of the first frame; each following one is the base of the one before.

    Args:
        chain: From the frame that is wanted to the one that stands alone.
        state_sha256: Of the payload that is wanted.
        known: Gives payloads by their version, to begin with. They may be of versions that were
            restored to something else meanwhile: then all frames are read.

    Raises CorruptFrame.
    """
    if not chain:
        raise CorruptFrame("there is no frame")
    for stored, below in zip(chain, [*chain[1:], None], strict=True):
        if stored.base_version != (None if below is None else below.version):
            raise CorruptFrame("a base is missing")
    for position, stored in enumerate(chain):
        payload = known(stored.version)
        if payload is not None:
            try:
                return _checked(_read(chain[:position], payload), state_sha256)
            except CorruptFrame:
                break  # what was known does not belong here
    return _checked(_read(chain, None), state_sha256)


def _checked(payload: bytes, state_sha256: bytes) -> bytes:
    if sha256(payload).digest() != state_sha256:
        raise CorruptFrame("the payload does not match its SHA-256")
    return payload


def _read(chain: Sequence[StoredFrame], payload: bytes | None) -> bytes:
    if payload is None and len(chain) > 1 and all(one.encoding == ZSTD for one in chain):
        return _read_at_once(chain)
    for stored in reversed(chain):
        payload = _decode_one(stored, payload)
    return payload or b""


def _read_at_once(chain: Sequence[StoredFrame]) -> bytes:
    """Read a chain with one decompressor: a third of the time that one for each frame takes."""
    for stored in chain:
        _check_size(stored)
    frames: list[bytes | bytearray | memoryview] = [stored.data for stored in reversed(chain)]
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << MAX_WINDOW_LOG)
    try:
        return decompressor.decompress_content_dict_chain(frames)
    except (zstandard.ZstdError, ValueError):
        raise CorruptFrame("a frame cannot be read") from None


def _decode_one(stored: StoredFrame, base: bytes | None) -> bytes:
    if stored.encoding == ZSTD:
        return _decompress(stored, base)
    if stored.encoding != IDENTITY:
        raise CorruptFrame("an unknown encoding")
    if len(stored.data) != stored.state_bytes:
        raise CorruptFrame("the payload has another size")
    return stored.data


def _decompress(stored: StoredFrame, base: bytes | None) -> bytes:
    _check_size(stored)
    try:
        decompressor = zstandard.ZstdDecompressor(
            dict_data=None if base is None else _prefix(base), max_window_size=1 << MAX_WINDOW_LOG
        )
        return decompressor.decompress(
            stored.data, max_output_size=stored.state_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise CorruptFrame("a frame cannot be read") from None


def _check_size(stored: StoredFrame) -> None:
    """What a frame says is what is allocated: it must be what the row says."""
    if not 0 <= stored.state_bytes <= MAX_PAYLOAD_BYTES:
        raise CorruptFrame("the payload's size is impossible")
    try:
        says_bytes = zstandard.frame_content_size(stored.data)
    except zstandard.ZstdError:
        raise CorruptFrame("a frame cannot be read") from None
    if says_bytes != stored.state_bytes:
        raise CorruptFrame("the frame's size is not the payload's")


def _compressor(base: bytes, size_bytes: int) -> zstandard.ZstdCompressor:
    prefix = _prefix(base)
    if len(base) <= LARGE_BASE_BYTES:
        return zstandard.ZstdCompressor(dict_data=prefix, level=LEVEL)
    # The tables must hold the whole base, and the window must reach back to its beginning.
    table_log = min(MAX_TABLE_LOG, len(base).bit_length() - 3)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=size_bytes,
        dict_size=len(base),
        window_log=min(MAX_WINDOW_LOG, (len(base) + size_bytes).bit_length()),
        hash_log=table_log,
        chain_log=table_log,
    )
    return zstandard.ZstdCompressor(dict_data=prefix, compression_params=parameters)


def _prefix(payload: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(payload, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
