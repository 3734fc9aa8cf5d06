"""Ids of snapshots say their version, sort by time, and stay unlike each other."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.service.ids import new_id
from statekeep_server.storage.snapshot_ids import (
    MAX_VERSION,
    is_snapshot_id,
    name_snapshot,
    version_named,
)


@given(st.integers(1, MAX_VERSION), st.uuids())
def test_an_id_says_its_version(version: int, made: uuid.UUID) -> None:
    named = name_snapshot(str(made), version)
    assert version_named(named) == version
    assert is_snapshot_id(named)
    assert uuid.UUID(named).version in {8, None}, "None where what was made is no UUID of RFC 9562"
    assert named[:13] == str(made)[:13]


def test_other_ids_say_none() -> None:
    assert version_named(new_id()) is None
    assert version_named(name_snapshot(new_id(), MAX_VERSION + 1)) is None


def test_ids_are_unlike_each_other_and_those_of_a_run_sort_by_version() -> None:
    ids = [name_snapshot(new_id(), version) for version in range(1, 1_000)]
    assert sorted(ids) == ids
    same = {name_snapshot(new_id(), 7) for _ in range(1_000)}
    assert len(same) == 1_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no-such",
        "3295E3A6-48C9-4643-A0A8-BECE5976E77A",
        "{3295e3a6-48c9-4643-a0a8-bece5976e77a}",
    ],
)
def test_what_is_written_otherwise_names_nothing(text: str) -> None:
    assert not is_snapshot_id(text)
