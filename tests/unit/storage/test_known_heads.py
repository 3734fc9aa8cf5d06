"""Heads that are known: the newest of each run, as many as fit."""

import pytest

from statekeep_server.storage.known_heads import ABSENT, HEAD_OVERHEAD_BYTES, KnownHeads
from tests.support.saves import RUN, head_of, prepared

HEAD = head_of(prepared({"step": 1}), version=1)
NEWER = head_of(prepared({"step": 2}), version=2)
ROOMY_BYTES = 10_000


@pytest.mark.parametrize("max_bytes", [0, 1, HEAD_OVERHEAD_BYTES - 1])
def test_what_does_not_fit_is_not_remembered(max_bytes: int) -> None:
    heads = KnownHeads(max_bytes)
    heads.saw(RUN, None)
    heads.saw(RUN, HEAD)
    assert heads.get(RUN) is None


def test_of_a_head_that_does_not_fit_nothing_older_is_known() -> None:
    heads = KnownHeads(HEAD_OVERHEAD_BYTES + len(HEAD.field_digests))
    heads.saw(RUN, HEAD)
    heads.saw(RUN, head_of(prepared({"step": 2, "more": 1}), version=2))
    assert heads.get(RUN) is None


def test_an_older_head_teaches_nothing() -> None:
    heads = KnownHeads(ROOMY_BYTES)
    heads.saw(RUN, None)
    assert heads.get(RUN) is ABSENT
    for seen in (NEWER, HEAD, None):
        heads.saw(RUN, seen)
        assert heads.get(RUN) is NEWER
    heads.forget(RUN)
    assert heads.get(RUN) is None
