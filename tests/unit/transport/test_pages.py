"""Page tokens come back, are bound to their listing, and any other text is refused."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.model import RunKey
from statekeep_server.service.ports import RunCursor
from statekeep_server.transport import pages

KEY = RunKey("default", "run-1")
IDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=256)


@given(st.integers(1, 2**63 - 1))
def test_a_token_of_snapshots_comes_back(before_version: int) -> None:
    token = pages.snapshots_token(KEY, before_version)
    assert pages.read_snapshots_token(token, KEY) == before_version


@given(IDS, IDS, st.integers(0, 2**63 - 1), IDS)
def test_a_token_of_runs_comes_back(thread: str, user: str, at_us: int, run_id: str) -> None:
    after = RunCursor(at_us, run_id)
    token = pages.runs_token("default", thread, user, after)
    assert pages.read_runs_token(token, "default", thread, user) == after


def test_the_first_page_has_no_token_and_the_last_names_none() -> None:
    assert pages.read_snapshots_token("", KEY) is None
    assert pages.read_runs_token("", "default", "", "") is None
    assert not pages.snapshots_token(KEY, None)
    assert not pages.runs_token("default", "", "", None)


def test_a_token_belongs_to_its_listing() -> None:
    of_snapshots = pages.snapshots_token(KEY, 5)
    of_runs = pages.runs_token("default", "t", "", RunCursor(5, "run-1"))
    for token, key in [
        (of_snapshots, RunKey("default", "run-2")),
        (of_snapshots, RunKey("other", "run-1")),
        (of_runs, KEY),
    ]:
        with pytest.raises(InvalidField, match="page_token"):
            pages.read_snapshots_token(token, key)
    for token, tenant, thread, user in [
        (of_runs, "default", "", "t"),
        (of_runs, "default", "", ""),
        (of_runs, "other", "t", ""),
        (of_snapshots, "default", "", ""),
    ]:
        with pytest.raises(InvalidField, match="page_token"):
            pages.read_runs_token(token, tenant, thread, user)


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_other_text_is_refused(text: str) -> None:
    if text:
        with pytest.raises(InvalidField, match="page_token"):
            pages.read_snapshots_token(text, KEY)
        with pytest.raises(InvalidField, match="page_token"):
            pages.read_runs_token(text, "default", "", "")


def forged(*position: Any, token: str = "") -> str:
    """Make a token with a right binding and any position."""
    token = token or pages.runs_token("default", "", "", RunCursor(1, "x"))
    content = json.loads(base64.urlsafe_b64decode(token + "=="))
    raw = json.dumps([*content[:2], *position]).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize(
    "position",
    [
        (),
        (1,),
        ("1", "x"),
        (-1, "x"),
        (2**63, "x"),
        (1, 2),
        (1, "a\0b"),
        (1, "\ud800"),
        (1, "x", 1),
    ],
)
def test_a_forged_position_is_refused(position: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidField, match="page_token"):
        pages.read_runs_token(forged(*position), "default", "", "")


@pytest.mark.parametrize("position", [(), ("1",), (0,), (-1,), (2**63,), (1, 1)])
def test_a_forged_version_is_refused(position: tuple[Any, ...]) -> None:
    token = forged(*position, token=pages.snapshots_token(KEY, 1))
    with pytest.raises(InvalidField, match="page_token"):
        pages.read_snapshots_token(token, KEY)


def test_a_very_long_token_is_refused_unread() -> None:
    with pytest.raises(InvalidField, match="page_token"):
        pages.read_runs_token(forged(1, "x" * 4_000), "default", "", "")
