"""The payloads of busy runs: of each the newest one and its last keyframe.

New frames build on them, and a load whose row says that the newest still stands need not fetch it.

A frame builds on the snapshot that stands when it is written, which the head's lock (or the
expectations of `one_statement`) keeps in place, so a base is never missing. When the chain gets
too deep the next frame builds on the chain's keyframe instead, or stands alone where that saves
too little or the keyframe might expire. What is remembered here was committed by this server;
a run that another server wrote meanwhile has another head, and its next frame stands alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from statekeep_server.domain.model import Head, RunKey, Snapshot
from statekeep_server.domain.transition import Written
from statekeep_server.storage.frames import IDENTITY, Base, Frame, encode

MAX_DEPTH = 16
"""Frames below a frame. A load reads them in one query and decodes each: about 0.1 ms apiece."""

ENTRY_OVERHEAD_BYTES = 1_000
"""The other values of a snapshot and its place in the cache, estimated from above."""

INLINE_BYTES = 32 * 1024
"""Encoding more than this takes a thread: the codec works outside the interpreter's lock."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A run's newest payload.

    Attributes:
        newest: The snapshot, with its state.
        depth: Of its frame.
        keyframe: The frame without a base under it; None where it may expire, or is not known.
    """

    newest: Snapshot
    depth: int
    keyframe: Base | None

    @property
    def size_bytes(self) -> int:
        """What it costs to remember."""
        shared = self.keyframe is None or self.keyframe.version == self.newest.version
        keyframe = 0 if shared or self.keyframe is None else len(self.keyframe.payload)
        return self.newest.state_bytes + keyframe + ENTRY_OVERHEAD_BYTES

    @property
    def base(self) -> Base:
        """The newest payload as a base."""
        newest = self.newest
        return Base(newest.version, newest.state or b"", newest.state_sha256, self.depth)


@dataclass(frozen=True, slots=True)
class Framed:
    """The frames of a transaction.

    Attributes:
        frames: The i-th is that of the i-th snapshot.
        newest: What to remember of each run once the transaction is committed.
    """

    frames: Sequence[Frame]
    newest: Mapping[RunKey, Payload]


class Payloads:
    """Frames payloads and remembers them, least recently written first out.

    Args:
        max_bytes: Of all payloads remembered.
    """

    def __init__(self, max_bytes: int) -> None:
        self._payloads: LRUCache[RunKey, Payload] = LRUCache(
            max_bytes, getsizeof=lambda payload: payload.size_bytes
        )

    async def frame(
        self, written: Sequence[Written], before: Mapping[RunKey, Head | None]
    ) -> Framed:
        """Frame the snapshots of a transaction, which found these heads."""
        standing = {}
        for key, head in before.items():
            known = self._payloads.get(key)
            if known and head and known.newest.snapshot_id == head.snapshot_id:
                standing[key] = known
        if sum(len(one.snapshot.state or b"") for one in written) <= INLINE_BYTES:
            return frame_all([one.snapshot for one in written], standing)
        snapshots = [one.snapshot for one in written]
        return await asyncio.to_thread(frame_all, snapshots, standing)

    def committed(self, framed: Framed) -> None:
        """Remember what was committed."""
        for key, payload in framed.newest.items():
            self._remember(key, payload)

    def loaded(self, snapshot: Snapshot, depth: int) -> None:
        """Remember the newest snapshot of a run, as it was read."""
        known = self._payloads.get(snapshot.key)
        if known is None or known.newest.version < snapshot.version:
            self._remember(snapshot.key, Payload(snapshot, depth, None))

    def newest(self, key: RunKey) -> Snapshot | None:
        """The newest snapshot that is remembered of a run; it need not stand any more."""
        known = self._payloads.get(key)
        return known.newest if known else None

    def _remember(self, key: RunKey, payload: Payload) -> None:
        if payload.size_bytes <= self._payloads.maxsize:
            self._payloads[key] = payload
        else:
            self._payloads.pop(key, None)


def frame_all(snapshots: Sequence[Snapshot], standing: Mapping[RunKey, Payload]) -> Framed:
    """Frame snapshots in order, each on what stands of its run by then."""
    frames: list[Frame] = []
    newest = dict(standing)
    for snapshot in snapshots:
        frame, payload = _frame_one(snapshot, newest.get(snapshot.key))
        frames.append(frame)
        newest[snapshot.key] = payload
    return Framed(frames, {one.key: newest[one.key] for one in snapshots})


def _frame_one(snapshot: Snapshot, standing: Payload | None) -> tuple[Frame, Payload]:
    payload = snapshot.state or b""
    frame = _choose(payload, standing)
    base = Base(snapshot.version, payload, snapshot.state_sha256, frame.depth)
    keyframe = standing.keyframe if standing and frame.base_version is not None else base
    if frame.base_version is None and snapshot.expires_at_us is not None:
        keyframe = None
    return frame, Payload(snapshot, frame.depth, keyframe)


def _choose(payload: bytes, standing: Payload | None) -> Frame:
    if standing is None:
        return encode(payload)
    base = standing.base if standing.depth < MAX_DEPTH else standing.keyframe
    if base is None:
        return encode(payload)
    frame = encode(payload, base)
    if frame.encoding == IDENTITY or 2 * len(frame.data) <= len(payload):
        return frame
    # It shares too little with its base to be worth a chain.
    return encode(payload)
