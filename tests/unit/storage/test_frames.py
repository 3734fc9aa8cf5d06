"""Frames give back what they hold, or say that they cannot."""

import random
from hashlib import sha256

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.storage.frames import (
    IDENTITY,
    ZSTD,
    Base,
    CorruptFrame,
    Frame,
    StoredFrame,
    decode,
    encode,
)

TEXT = b'{"messages": ["' + b"what a long conversation this is " * 40 + b'"]}'


def stored(frame: Frame, payload: bytes, version: int = 1) -> StoredFrame:
    return StoredFrame(frame, version, len(payload), sha256(payload).digest())


def base_of(payload: bytes, version: int = 1, depth: int = 0) -> Base:
    return Base(version, payload, sha256(payload).digest(), depth)


@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=6))
def test_a_chain_gives_back_every_payload(pieces: list[bytes]) -> None:
    chain: list[StoredFrame] = []
    payload = TEXT
    base: Base | None = None
    for version, piece in enumerate(pieces, 1):
        payload += piece
        frame = encode(payload, base)
        one = stored(frame, payload, version)
        chain = [one, *chain] if frame.base_version is not None else [one]
        assert decode(chain) == payload
        base = base_of(payload, version, frame.depth)


def test_a_small_payload_is_stored_as_it_came() -> None:
    assert encode(b"{}") == Frame(IDENTITY, b"{}")


def test_a_payload_that_does_not_shrink_is_stored_as_it_came() -> None:
    noise = random.Random(1).randbytes(1_000)
    assert encode(noise) == Frame(IDENTITY, noise)
    assert encode(noise, base_of(TEXT)) == Frame(IDENTITY, noise)


def test_a_frame_on_a_base_holds_little_more_than_what_is_new() -> None:
    news = random.Random(2).randbytes(100).hex().encode()
    frame = encode(TEXT * 5 + news, base_of(TEXT * 5))
    assert frame.encoding == ZSTD
    assert (frame.base_version, frame.depth) == (1, 1)
    assert len(frame.data) < len(news) + 60


def on_base() -> tuple[StoredFrame, StoredFrame]:
    payload = TEXT + b"more"
    frame = encode(payload, base_of(TEXT))
    return stored(frame, payload, 2), stored(encode(TEXT), TEXT, 1)


def test_a_missing_base_is_found() -> None:
    top, _ = on_base()
    with pytest.raises(CorruptFrame, match="base is missing"):
        decode([top])


def test_no_frames_are_no_payload() -> None:
    with pytest.raises(CorruptFrame, match="no frame"):
        decode([])


def test_another_base_is_found() -> None:
    top, _ = on_base()
    for version, payload in ((7, TEXT), (1, TEXT + b"!")):
        other = stored(encode(payload), payload, version)
        with pytest.raises(CorruptFrame, match="another base"):
            decode([top, other])


def test_a_changed_payload_is_found() -> None:
    payload = TEXT + b"more"
    for frame in (Frame(IDENTITY, payload[::-1]), encode(payload[::-1])):
        with pytest.raises(CorruptFrame, match="SHA-256"):
            decode([stored(frame, payload)])


def test_a_broken_frame_is_found() -> None:
    frame = encode(TEXT)
    for data in (b"", b"nonsense", frame.data[:-5], frame.data + b"more"):
        with pytest.raises(CorruptFrame):
            decode([stored(Frame(ZSTD, data), TEXT)])


def test_an_unknown_encoding_is_found() -> None:
    with pytest.raises(CorruptFrame, match="unknown"):
        decode([stored(Frame("brotli", b""), TEXT)])


def test_a_bomb_is_not_unpacked() -> None:
    """A few kB that unpack to a GB: what the frame says must be what the row says, and small."""
    bomb = zstandard.ZstdCompressor().compress(b"\x00" * 10_000_000)
    with pytest.raises(CorruptFrame, match="size"):
        decode([stored(Frame(ZSTD, bomb), TEXT)])
    impossible = StoredFrame(Frame(ZSTD, bomb), 1, 1 << 40, b"")
    with pytest.raises(CorruptFrame, match="impossible"):
        decode([impossible])
    # A frame that does not say its size is none of ours.
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"\x00" * 10_000_000)
    with pytest.raises(CorruptFrame, match="size"):
        decode([stored(Frame(ZSTD, silent), TEXT)])
