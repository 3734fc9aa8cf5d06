"""Heads that are known: the newest of each run, as many as fit."""

import pytest

from statekeep_server.domain.model import RunKey
from statekeep_server.storage.known_heads import ABSENT, HEAD_OVERHEAD_BYTES, KnownHeads
from tests.support.saves import RUN, head_of, prepared

HEAD = head_of(prepared({"step": 1}), version=1)
NEWER = head_of(prepared({"step": 2}), version=2)
ROOMY_BYTES = 10_000


@pytest.mark.parametrize("max_bytes", [0, 1, HEAD_OVERHEAD_BYTES - 1])
def test_what_does_not_fit_is_not_remembered(max_bytes: int) -> None:
    heads = KnownHeads(max_bytes)
    heads.read(RUN, None)
    heads.wrote(RUN, HEAD)
    assert heads.get(RUN) is None


def test_of_a_head_that_does_not_fit_nothing_older_is_known() -> None:
    heads = KnownHeads(HEAD_OVERHEAD_BYTES + len(HEAD.field_digests))
    heads.wrote(RUN, HEAD)
    heads.wrote(RUN, head_of(prepared({"step": 2, "more": 1}), version=2))
    assert heads.get(RUN) is None


def test_an_older_head_teaches_nothing() -> None:
    heads = KnownHeads(ROOMY_BYTES)
    heads.read(RUN, None)
    assert heads.get(RUN) is ABSENT
    for seen in (NEWER, HEAD, None):
        heads.read(RUN, seen)
        assert heads.get(RUN) is NEWER
    heads.forget(RUN)
    assert heads.get(RUN) is None


def test_runs_that_are_written_once_take_no_room_from_busy_ones() -> None:
    heads = KnownHeads(100 * (HEAD_OVERHEAD_BYTES + len(HEAD.field_digests)))
    heads.read(RUN, None)
    heads.wrote(RUN, HEAD)
    heads.read(RUN, HEAD)
    heads.wrote(RUN, NEWER)
    for number in range(1_000):
        once = RunKey(RUN.tenant, f"once-{number}")
        heads.read(once, None)
        heads.wrote(once, HEAD)
    assert heads.get(RUN) is NEWER


def test_a_run_that_is_only_read_is_not_busy() -> None:
    heads = KnownHeads(100 * (HEAD_OVERHEAD_BYTES + len(HEAD.field_digests)))
    heads.read(RUN, HEAD)
    heads.read(RUN, HEAD)
    for number in range(1_000):
        heads.read(RunKey(RUN.tenant, f"run-{number}"), HEAD)
    assert heads.get(RUN) is None
