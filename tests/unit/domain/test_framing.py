"""The framing of hashes: nothing put together can be taken for something else."""

from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain.framing import digest, frame, maybe, number, texts
from tests.support import canonical_oracle as oracle

PARTS = st.lists(st.binary(max_size=12), max_size=4)


@given(PARTS, PARTS)
def test_frames_are_equal_for_equal_parts_only(one: list[bytes], other: list[bytes]) -> None:
    assert (frame(one) == frame(other)) == (one == other)


def test_a_boundary_counts() -> None:
    assert frame([b"ab", b"c"]) != frame([b"a", b"bc"]) != frame([b"abc"])
    assert frame([b"a", b""]) != frame([b"a"])
    assert frame([frame([b"a"])]) != frame([b"a"])


def test_a_digest_is_that_of_the_document() -> None:
    assert digest("tag", [b"one", b""]) == oracle.digest("tag", b"one", b"")
    assert digest("tag", [b"one"]) != digest("gat", [b"one"])
    assert digest("a", [b"b"]) != digest("ab", [])


def test_absent_and_empty_differ() -> None:
    assert maybe(None) == b""
    assert maybe(b"") == oracle.frame(b"")


def test_numbers_and_texts_are_parts() -> None:
    assert number(-120) == b"-120"
    assert texts(["é", ""]) == oracle.frame("é".encode(), b"")
