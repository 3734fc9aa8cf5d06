"""The payloads of busy runs: of each the newest one and its anchor.

New frames build on them, and a load whose row says that the newest still stands need not fetch it.

A frame builds on the snapshot that stands when it is written, which the head's lock (or the
expectations of `one_statement`) keeps in place, so a base is never missing. A chain of such frames
is a segment, and begins with an *anchor*; when the segment is full, the next frame builds on its
anchor and becomes the anchor of the next segment. So every version is a few frames away from one
that stands alone, and most frames hold one step. A frame stands alone where no base is known, where
building on one saves too little, and where its chain would get too long.

What is remembered here was committed by this server; a run that another server wrote meanwhile has
another head, and its next frame stands alone. So does the second frame of a run: only runs that
come back while they are still among those written lately have their payloads remembered, so that
runs which are saved once, or once in a long while, take no memory from those that are busy
(decision 0020).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cachetools import LRUCache

from statekeep_server.busy import RECENT_RUNS, RecentRuns
from statekeep_server.domain.model import Head, RunKey, Snapshot
from statekeep_server.domain.transition import Written
from statekeep_server.domain.values import value_class
from statekeep_server.storage.frames import Base, Frame, StoredFrame, encode

SEGMENT = 16
"""Snapshots that build on one another, an anchor first."""
ANCHORS = 16
"""Anchors that build on one another, the one that stands alone first."""
MAX_DEPTH = SEGMENT - 1 + ANCHORS - 1
"""Frames below a frame: read in one query, and decoded in 10 microseconds apiece for 10 kB."""

MAX_CHAIN_BYTES = 16 * 1024 * 1024
MAX_CHAIN_TIMES = 8
"""A load decodes no more than so many bytes, or so many times what it loads: large states have
short chains."""

ANCHOR_LIFE_US = 3_600 * 1_000_000
"""What is built on an anchor that is not the head relies on its being there until the commit: an
anchor that would expire so soon is not used."""

ENTRY_OVERHEAD_BYTES = 1_000
"""The other values of a snapshot and its place in the cache, estimated from above."""

INLINE_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024
"""States up to so much each, and so much together, are encoded on the event loop: 2 ms for a full
batch of 10 kB. A thread, which works outside the interpreter's lock, is for larger ones: with one
for small states too, a save took a seventh more processor time."""


@value_class()
class Payload:
    """A run's newest payload.

    Attributes:
        newest: The snapshot, with its state.
        base: The same as a base.
        anchor: Of its segment; None where it is not known.
        position: In its segment; 0 for the anchor.
    """

    newest: Snapshot
    base: Base
    anchor: Base | None
    position: int

    @property
    def size_bytes(self) -> int:
        """What it costs to remember."""
        anchor = 0 if self.anchor is None or self.position == 0 else len(self.anchor.payload)
        return self.newest.state_bytes + anchor + ENTRY_OVERHEAD_BYTES


@value_class()
class Framed:
    """The frames of a transaction.

    Attributes:
        frames: The i-th is that of the i-th snapshot.
        newest: What to remember of each run once the transaction is committed.
    """

    frames: Sequence[Frame]
    newest: Mapping[RunKey, Payload]


class Payloads:
    """Frames payloads and remembers those of busy runs, least recently written first out.

    Args:
        max_bytes: Of all payloads remembered.
    """

    def __init__(self, max_bytes: int) -> None:
        self._payloads: LRUCache[RunKey, Payload] = LRUCache(
            max_bytes, getsizeof=lambda payload: payload.size_bytes
        )
        self._recent = RecentRuns(RECENT_RUNS)

    async def frame(
        self, written: Sequence[Written], before: Mapping[RunKey, Head | None]
    ) -> Framed:
        """Frame the snapshots of a transaction, which found these heads."""
        standing = {}
        for key, head in before.items():
            known = self._payloads.get(key)
            if known and head and known.newest.snapshot_id == head.snapshot_id:
                standing[key] = known
        snapshots = [one.snapshot for one in written]
        sizes = [snapshot.state_bytes for snapshot in snapshots]
        if max(sizes, default=0) <= SMALL_BYTES and sum(sizes) <= INLINE_BYTES:
            return frame_all(snapshots, standing)
        return await asyncio.to_thread(frame_all, snapshots, standing)

    def committed(self, framed: Framed) -> None:
        """Remember what was committed of runs that come back."""
        for key, payload in framed.newest.items():
            if self._recent.came_back(key) or key in self._payloads:
                self._remember(key, payload)

    def loaded(self, snapshot: Snapshot, chain: Sequence[StoredFrame]) -> None:
        """Remember the newest snapshot of a run, as it was read from a chain of frames."""
        known = self._payloads.get(snapshot.key)
        if known is None or known.newest.version < snapshot.version:
            self._remember(snapshot.key, read_payload(snapshot, chain))

    def newest(self, key: RunKey) -> Snapshot | None:
        """The newest snapshot that is remembered of a run; it need not stand any more."""
        known = self._payloads.get(key)
        return known.newest if known else None

    def _remember(self, key: RunKey, payload: Payload) -> None:
        if payload.size_bytes > self._payloads.maxsize:
            payload = replace(payload, anchor=None)
        if payload.size_bytes <= self._payloads.maxsize:
            self._payloads[key] = payload
        else:
            self._payloads.pop(key, None)


def read_payload(snapshot: Snapshot, chain: Sequence[StoredFrame]) -> Payload:
    """Make what is to be remembered of a snapshot that was read from a chain of frames."""
    depth = len(chain) - 1
    chain_bytes = sum(stored.state_bytes for stored in chain)
    payload = snapshot.state or b""
    base = Base(snapshot.version, payload, depth, chain_bytes, snapshot.expires_at_us)
    # Where its segment began is not known: its chain is taken for one segment after another.
    return Payload(snapshot, base, None, depth % SEGMENT)


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
    frame, base, position = _choose(snapshot, payload, standing)
    own = Base(
        snapshot.version,
        payload,
        frame.depth,
        len(payload) + (0 if base is None else base.chain_bytes),
        snapshot.expires_at_us,
    )
    anchor = own if position == 0 or standing is None else standing.anchor
    return frame, Payload(snapshot, own, anchor, position)


def _choose(
    snapshot: Snapshot, payload: bytes, standing: Payload | None
) -> tuple[Frame, Base | None, int]:
    """Frame a payload; return the frame, its base, and its position in its segment."""
    base, position = _base(snapshot, standing)
    if base is not None:
        frame = encode(payload, base)
        if frame.base_version is not None and 2 * len(frame.data) <= len(payload):
            return frame, base, position
    # It shares too little with its base to be worth a chain.
    return encode(payload), None, 0


def _base(snapshot: Snapshot, standing: Payload | None) -> tuple[Base | None, int]:
    """Choose what to build on, and the position in the segment that results."""
    if standing is None:
        return None, 0
    size_bytes = snapshot.state_bytes
    room_bytes = max(MAX_CHAIN_BYTES, MAX_CHAIN_TIMES * size_bytes) - size_bytes
    newest, anchor = standing.base, standing.anchor
    if (
        standing.position + 1 < SEGMENT
        and newest.depth < MAX_DEPTH
        and newest.chain_bytes <= room_bytes
    ):
        return newest, standing.position + 1
    if (
        anchor is not None
        and anchor.depth + 1 < ANCHORS
        and anchor.chain_bytes <= room_bytes
        and _lives(anchor, snapshot.persisted_at_us)
    ):
        return anchor, 0
    return None, 0


def _lives(anchor: Base, now_us: int) -> bool:
    return anchor.expires_at_us is None or anchor.expires_at_us > now_us + ANCHOR_LIFE_US
