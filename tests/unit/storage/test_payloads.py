"""Which base a frame builds on: chains that are short, long-lived and within their bounds."""

import random
from dataclasses import replace
from hashlib import sha256

from statekeep_server.busy import RECENT_RUNS
from statekeep_server.domain.model import LoadedState, RunKey, Snapshot
from statekeep_server.storage.frames import Frame, StoredFrame, decode
from statekeep_server.storage.payloads import (
    ANCHOR_LIFE_US,
    ANCHORS,
    MAX_CHAIN_BYTES,
    MAX_CHAIN_TIMES,
    MAX_DEPTH,
    SEGMENT,
    Framed,
    Payload,
    Payloads,
    frame_all,
    read_payload,
)
from statekeep_server.storage.read_payloads import ReadPayloads

KEY = RunKey("tenant", "run")
NOW_US = 1_800_000_000_000_000


def snapshot(version: int, state: bytes, expires_at_us: int | None = None) -> Snapshot:
    return Snapshot(
        key=KEY,
        snapshot_id=f"snapshot-{version}",
        version=version,
        thread_id="",
        user_id="",
        checkpoint_type="AUTO",
        agent_phase="",
        execution_context=(),
        is_recovery_point=False,
        persisted_at_us=NOW_US,
        expires_at_us=expires_at_us,
        content_type="application/json",
        state_bytes=len(state),
        state_sha256=sha256(state).digest(),
        comparison_hash=b"",
        state=state,
    )


def similar(count: int, size_bytes: int = 1_000) -> list[bytes]:
    noise = random.Random(1).randbytes(size_bytes)
    return [b"step %d" % step + noise for step in range(count)]


def framed(
    states: list[bytes], expires_at_us: int | None = None
) -> tuple[list[Frame], list[Payload]]:
    """Frame states one after another, as a run's saves are."""
    frames: list[Frame] = []
    payloads: list[Payload] = []
    standing: dict[RunKey, Payload] = {}
    for version, state in enumerate(states, 1):
        done = frame_all([snapshot(version, state, expires_at_us)], standing)
        standing = dict(done.newest)
        frames += done.frames
        payloads.append(done.newest[KEY])
    return frames, payloads


def chain_of(version: int, frames: list[Frame], states: list[bytes]) -> list[StoredFrame]:
    chain = []
    at: int | None = version
    while at is not None:
        frame = frames[at - 1]
        stored = (at, len(states[at - 1]), frame.encoding, frame.base_version, frame.data)
        chain.append(StoredFrame(*stored))
        at = frame.base_version
    return chain


def test_segments_build_on_one_another_and_all_can_be_read() -> None:
    states = similar(SEGMENT * ANCHORS + SEGMENT)
    frames, payloads = framed(states)
    alone = [version for version, frame in enumerate(frames, 1) if frame.base_version is None]
    assert alone == [1, SEGMENT * ANCHORS + 1]
    assert frames[SEGMENT].base_version == 1, "the second anchor builds on the first"
    assert frames[2 * SEGMENT].base_version == SEGMENT + 1
    assert max(frame.depth for frame in frames) == MAX_DEPTH
    for version, state in enumerate(states, 1):
        chain = chain_of(version, frames, states)
        assert len(chain) == frames[version - 1].depth + 1
        assert payloads[version - 1].base.chain_bytes == sum(one.state_bytes for one in chain)
        assert decode(chain, sha256(state).digest()) == state


def test_a_state_that_shares_too_little_stands_alone() -> None:
    other = random.Random(2).randbytes(400).hex().encode()
    frames, _ = framed([*similar(2), other, other + b"!"])
    assert [frame.base_version for frame in frames] == [None, 1, None, 3]


def test_chains_of_large_states_are_short() -> None:
    size_bytes = MAX_CHAIN_BYTES // 3
    states = similar(12, size_bytes)
    frames, payloads = framed(states)
    for frame, payload in zip(frames, payloads, strict=True):
        assert frame.depth < MAX_CHAIN_TIMES
        limit_bytes = max(MAX_CHAIN_BYTES, MAX_CHAIN_TIMES * payload.newest.state_bytes)
        assert payload.base.chain_bytes <= limit_bytes
    assert sum(frame.base_version is None for frame in frames) == 1


def test_an_anchor_that_may_go_is_not_built_on_any_more() -> None:
    states = similar(SEGMENT + 1)
    for life_us, base_version in ((ANCHOR_LIFE_US, None), (ANCHOR_LIFE_US + 1, 1)):
        frames, _ = framed(states, NOW_US + life_us)
        assert frames[SEGMENT - 1].base_version == SEGMENT - 1
        assert frames[SEGMENT].base_version == base_version


def test_what_was_loaded_is_built_on_within_its_bounds() -> None:
    states = similar(SEGMENT * 3)
    frames, _ = framed(states)
    payloads = Payloads(1_000_000)
    newest = snapshot(SEGMENT * 3, states[-1])
    chain = chain_of(SEGMENT * 3, frames, states)
    payloads.loaded(newest, chain)
    known = read_payload(newest, chain)
    assert (known.base.depth, known.anchor) == (len(chain) - 1, None)
    assert known.base.chain_bytes == sum(one.state_bytes for one in chain)
    standing = {KEY: known}
    for version in range(SEGMENT * 3 + 1, SEGMENT * 5):
        done = frame_all([snapshot(version, states[0] + b"%d" % version)], standing)
        assert done.frames[0].depth <= MAX_DEPTH
        standing = dict(done.newest)
    # An older one does not take the place of a newer one.
    payloads.loaded(snapshot(1, states[0]), chain[-1:])
    assert payloads.newest(KEY) == newest


def test_both_payloads_of_a_run_count() -> None:
    states = similar(3, 10_000)
    _, found = framed(states)
    sizes = [payload.size_bytes for payload in found]
    assert sizes[0] < 12_000
    assert sizes[1] > 20_000


def test_only_a_run_that_comes_back_is_remembered() -> None:
    _, found = framed(similar(3))
    payloads = Payloads(1_000_000)
    payloads.committed(Framed((), {KEY: found[0]}))
    assert payloads.newest(KEY) is None
    payloads.committed(Framed((), {KEY: found[1]}))
    assert payloads.newest(KEY) == found[1].newest


def test_a_run_that_comes_back_late_is_not_remembered_unless_it_still_is() -> None:
    _, found = framed(similar(3))
    payloads = Payloads(1_000_000)
    others = [RunKey("tenant", f"other-{number}") for number in range(2 * RECENT_RUNS)]
    for late in found:
        payloads.committed(Framed((), {KEY: late}))
        payloads.committed(Framed((), dict.fromkeys(others, found[0])))
    assert payloads.newest(KEY) is None

    kept = Payloads(1_000_000_000)
    for late in (found[0], *found):
        kept.committed(Framed((), {KEY: late}))
    kept.committed(Framed((), dict.fromkeys(others, found[0])))
    kept.committed(Framed((), {KEY: found[1]}))
    assert kept.newest(KEY) == found[1].newest


def test_an_anchor_is_forgotten_before_the_newest() -> None:
    states = similar(2, 10_000)
    payloads = Payloads(15_000)
    payloads.committed(frame_all([snapshot(1, states[0])], {}))
    _, found = framed(states)
    payloads.committed(Framed((), {KEY: found[-1]}))
    assert payloads.newest(KEY) == found[-1].newest
    payloads.committed(Framed((), {KEY: framed(similar(1, 20_000))[1][0]}))
    assert payloads.newest(KEY) is None


def test_read_payloads_are_remembered_within_their_bounds() -> None:
    remembered = ReadPayloads(25_000)
    for version in range(1, 5):
        remembered.remember(snapshot(version, b"%d" % version * 10_000))
    remembered.remember(snapshot(5, b"5" * 30_000))
    held = [version for version in range(6) if remembered.holds(KEY, version)]
    assert held == [3, 4]
    assert not remembered.holds(KEY, None)
    assert remembered.of_run(KEY)(3) == b"3" * 10_000
    assert remembered.of_run(KEY)(1) is None
    assert remembered.of_run(RunKey("other", "run"))(3) is None


def test_a_read_payload_completes_only_its_own_snapshot() -> None:
    remembered = ReadPayloads(25_000)
    one = snapshot(1, b"one")
    remembered.remember(one)
    found = LoadedState(snapshot=replace(one, state=None), head_version=9)
    assert remembered.complete(found) == replace(found, snapshot=one)
    restored = replace(one, state_sha256=sha256(b"other").digest(), state=None)
    assert remembered.complete(replace(found, snapshot=restored)) is None
    other = replace(one, version=2, state=None)
    assert remembered.complete(replace(found, snapshot=other)) is None
