"""The debug mode says what was decided and why, and never what was saved."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from statekeep_server.domain.errors import StorageUnavailable, VersionConflict
from statekeep_server.domain.model import CheckpointType
from statekeep_server.flags import Flags
from statekeep_server.service.decisions import MAX_NAME_CHARACTERS, MAX_NAMES
from statekeep_server.telemetry.log_lines import LineFormat
from tests.support.world import World, command, open_world

SECRET = "c4n4ry"
A: dict[str, Any] = {"plan": SECRET, "step": 1}
B: dict[str, Any] = {"plan": SECRET, "step": 2}
JSON = LineFormat(as_json=True)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as opened:
        opened.flags = replace(opened.flags, monitoring=False)
        yield opened


@pytest.fixture(autouse=True)
def _debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "statekeep")


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [JSON.line(record) for record in caplog.records]
    assert not any(SECRET in line for line in lines)
    return [json.loads(line) for line in lines]


def of(lines: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["message"].startswith(f"{kind}: ")]


async def test_each_decision_is_told_with_its_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = (await world.facade.save(command(A, request_id="r-1"))).result
    await world.facade.save(command(A))
    await world.facade.save(command(B))
    await world.facade.save(command(B, checkpoint_type=CheckpointType.MANUAL))
    found = of(told(caplog), "Decided")
    assert [(each["outcome"], each["reason"], each["version"]) for each in found] == [
        ("PERSISTED", "FIRST_SAVE", 1),
        ("SKIPPED", "UNCHANGED", 1),
        ("PERSISTED", "CHANGED", 2),
        ("PERSISTED", "CHECKPOINT_TYPE", 3),
    ]
    assert [(each["fields_changed"], each["changed"]) for each in found] == [
        (2, "plan,step"),
        (0, ""),
        (1, "step"),
        (0, ""),
    ]
    assert found[0]["request_id"] == "r-1"
    assert found[0]["state_sha256"] == first.state_sha256.hex()
    assert found[0]["comparison_hash"] == first.comparison_hash.hex()
    assert found[0]["snapshot_id"] == first.snapshot_id
    assert {each["path"] for each in found} == {"OPTIMIZED"}


async def test_each_route_is_told_with_its_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for state, kind in ((A, "AUTO"), (A, "AUTO"), (B, "AUTO"), (B, "MANUAL")):
        await world.facade.save(command(state, checkpoint_type=kind))
    found = of(told(caplog), "Routed")
    assert [(each["route"], each["why"], each["cached_version"]) for each in found] == [
        ("lock", "BARRIER_PERSISTS", None),
        ("barrier", "BARRIER_ANSWERS", 1),
        ("lock", "CACHE_DIFFERS", 1),
        ("lock", "NO_CHOICE", None),
    ]


async def test_a_save_behind_a_queued_one_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.TaskGroup() as group:
        for state in (A, B):
            group.create_task(world.facade.save(command(state)))
    found = of(told(caplog), "Routed")
    assert [each["why"] for each in found] == ["BARRIER_PERSISTS", "QUEUED_BEHIND"]
    assert found[1]["queued"] == 1


async def test_the_standard_path_has_no_routes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.flags = Flags(monitoring=False)
    await world.facade.save(command(A))
    lines = told(caplog)
    assert not of(lines, "Routed")
    assert [each["path"] for each in of(lines, "Decided")] == ["STANDARD"]


async def test_a_fallback_and_a_refusal_are_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.optimized.always["append_many"] = StorageUnavailable("UNREACHABLE")
    await world.facade.save(command(A))
    with pytest.raises(VersionConflict):
        await world.facade.save(command(B, expected_version=9))
    lines = told(caplog)
    assert [each["fallback"] for each in of(lines, "Decided")] == ["STORAGE_UNAVAILABLE"]
    assert of(lines, "Optimized persistence failed")
    (refused,) = of(lines, "Not saved")
    assert (refused["reason"], refused["path"]) == ("VERSION_CONFLICT", "OPTIMIZED")


async def test_many_and_long_names_are_cut(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.facade.save(command({f"{number:03}" + "x" * 100: 1 for number in range(100)}))
    (line,) = of(told(caplog), "Decided")
    assert line["fields_changed"] == 100
    names = line["changed"].split(",")
    assert len(names) == MAX_NAMES
    assert {len(name) for name in names} == {MAX_NAME_CHARACTERS}


async def test_above_debug_nothing_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "statekeep")
    await world.facade.save(command(A))
    with pytest.raises(VersionConflict):
        await world.facade.save(command(B, expected_version=9))
    assert not caplog.records


async def test_a_line_cannot_be_forged_by_a_name(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.facade.save(command({"a\nDecided: outcome=SKIPPED": 1}))
    for record in caplog.records:
        assert len(LineFormat(as_json=False).line(record).splitlines()) == 1
