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
    return StoredFrame(version, len(payload), frame.encoding, frame.base_version, frame.data)


def base_of(payload: bytes, version: int = 1, depth: int = 0) -> Base:
    return Base(version, payload, depth, len(payload))


def read(chain: list[StoredFrame], payload: bytes = TEXT) -> bytes:
    """Decode a chain that should give a payload."""
    return decode(chain, sha256(payload).digest())


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
        assert read(chain, payload) == payload
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
        read([top])


def test_no_frames_are_no_payload() -> None:
    with pytest.raises(CorruptFrame, match="no frame"):
        read([])


def test_another_base_is_found() -> None:
    top, base = on_base()
    payload = TEXT + b"more"
    assert read([top, base], payload) == payload
    with pytest.raises(CorruptFrame, match="base is missing"):
        read([top, base._replace(version=7)], payload)
    other = TEXT.replace(b"long", b"dull")
    with pytest.raises(CorruptFrame, match="SHA-256"):
        read([top, stored(encode(other), other)], payload)


def test_reading_begins_with_what_is_known() -> None:
    top, base = on_base()
    payload = TEXT + b"more"
    unreadable = base._replace(data=b"nonsense")
    known = {1: TEXT, 2: payload}
    for version in (1, 2):
        assert decode([top, unreadable], sha256(payload).digest(), {version: known[version]}.get)
    for wrong in (b"", TEXT.replace(b"long", b"dull")):
        for version in (1, 2):
            found = decode([top, base], sha256(payload).digest(), {version: wrong}.get)
            assert found == payload


def test_what_changed_in_a_large_payload_is_found_wherever_it_is() -> None:
    dice = random.Random(3)
    payload = dice.randbytes(1_500_000)
    changed = b"new" + payload[:700_000] + b"new" + payload[700_000:] + b"new"
    frame = encode(changed, base_of(payload))
    assert len(frame.data) < 2_000
    chain = [stored(frame, changed, 2), StoredFrame(1, len(payload), IDENTITY, None, payload)]
    assert read(chain, changed) == changed


def test_a_changed_payload_is_found() -> None:
    payload = TEXT + b"more"
    with pytest.raises(CorruptFrame, match="another size"):
        read([stored(Frame(IDENTITY, TEXT), payload)])
    for frame in (Frame(IDENTITY, payload[::-1]), encode(payload[::-1])):
        with pytest.raises(CorruptFrame, match="SHA-256"):
            read([stored(frame, payload)], payload)


def test_a_broken_frame_is_found() -> None:
    frame = encode(TEXT)
    for data in (b"", b"nonsense", frame.data[:-5], frame.data + b"more"):
        with pytest.raises(CorruptFrame):
            read([stored(Frame(ZSTD, data), TEXT)])


@pytest.mark.parametrize("data", [b"", b"nonsense", encode(TEXT).data[:-5]])
@pytest.mark.parametrize("position", [0, 1])
def test_a_broken_frame_of_a_chain_is_found(data: bytes, position: int) -> None:
    chain = list(on_base())
    chain[position] = chain[position]._replace(data=data)
    with pytest.raises(CorruptFrame):
        read(chain, TEXT + b"more")


def test_a_bomb_below_is_not_unpacked() -> None:
    top, base = on_base()
    bomb = zstandard.ZstdCompressor().compress(b"\x00" * 10_000_000)
    with pytest.raises(CorruptFrame, match="size"):
        read([top, base._replace(data=bomb)], TEXT + b"more")
    with pytest.raises(CorruptFrame, match="impossible"):
        read([top, base._replace(data=bomb, state_bytes=1 << 40)], TEXT + b"more")


def test_an_unknown_encoding_is_found() -> None:
    with pytest.raises(CorruptFrame, match="unknown"):
        read([stored(Frame("brotli", b""), TEXT)])


def test_a_bomb_is_not_unpacked() -> None:
    """A few kB that unpack to a GB: what the frame says must be what the row says, and small."""
    bomb = zstandard.ZstdCompressor().compress(b"\x00" * 10_000_000)
    with pytest.raises(CorruptFrame, match="size"):
        read([stored(Frame(ZSTD, bomb), TEXT)])
    impossible = StoredFrame(1, 1 << 40, ZSTD, None, bomb)
    with pytest.raises(CorruptFrame, match="impossible"):
        read([impossible])
    # A frame that does not say its size is none of ours.
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"\x00" * 10_000_000)
    with pytest.raises(CorruptFrame, match="size"):
        read([stored(Frame(ZSTD, silent), TEXT)])
