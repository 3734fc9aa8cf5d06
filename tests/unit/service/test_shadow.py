"""Shadow mode: standard answers as ever, and the counts say what optimized would have done."""

import logging
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from statekeep_server.domain.model import Outcome, Path, Reason, RunKey, SaveCommand
from statekeep_server.flags import Flags
from statekeep_server.service import shadow as shadow_module
from statekeep_server.service.answers import ShadowStatistics
from statekeep_server.service.shadow import NO_SHADOW
from statekeep_server.storage.memory_store import MemoryStateStore
from tests.support.world import RUN, World, command, open_world

SHADOWED = Flags(shadow=True)
OPTIMIZED = Flags(enable_optimized_persistence=True)
A: dict[str, Any] = {"plan": "a"}
B: dict[str, Any] = {"plan": "b"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world(grouped=False) as opened:
        opened.flags = SHADOWED
        yield opened


def counted(world: World) -> ShadowStatistics:
    return world.facade.statistics().shadow


async def test_standard_answers_and_the_shadow_counts(world: World) -> None:
    for state in (A, A, B, A, A):
        ack = await world.facade.save(command(state))
        assert ack.path is Path.STANDARD
        assert (ack.result.outcome, ack.result.reason) == (Outcome.PERSISTED, Reason.STANDARD_PATH)
    found = counted(world)
    assert found.would_skip == 2
    assert found.would_persist == {"FIRST_SAVE": 1, "CHANGED": 2}
    assert found.rows_avoided == 8
    assert found.disagreements == 0
    assert (found.routes_right, found.routes_wrong) == (4, 0)


async def test_switched_off_it_counts_nothing(world: World) -> None:
    world.flags = Flags()
    await world.facade.save(command(A))
    await world.facade.save(command(A))
    assert counted(world) == NO_SHADOW


async def test_the_optimized_path_has_no_shadow(world: World) -> None:
    world.flags = replace(SHADOWED, enable_optimized_persistence=True)
    await world.facade.save(command(A))
    assert (await world.facade.save(command(A))).result.outcome is Outcome.SKIPPED
    assert counted(world) == NO_SHADOW


async def test_the_age_is_that_of_what_would_stand(world: World) -> None:
    """Standard moves the head with every save: its age alone would never end a row of skips."""
    await world.facade.save(command(A))
    for _ in range(4):
        world.clock.advance(100.0)  # the limit is 300 s
        await world.facade.save(command(A))
    assert counted(world).would_persist == {"FIRST_SAVE": 1, "MAX_SKIP_AGE": 1}
    assert counted(world).would_skip == 3


async def test_skips_in_a_row_are_carried() -> None:
    async with open_world(grouped=False, max_skips=2) as world:
        world.flags = SHADOWED
        for _ in range(5):
            await world.facade.save(command(A))
        assert counted(world).would_persist == {"FIRST_SAVE": 1, "MAX_SKIPS": 1}
        assert counted(world).would_skip == 3


async def test_a_retry_is_counted_once_and_nothing_of_it_is_stored(world: World) -> None:
    await world.facade.save(command(A, request_id="one"))
    replay = await world.facade.save(command(A, request_id="one", attempt=2))
    assert replay.result.replayed
    assert replay.result.would is None
    assert sum(counted(world).would_persist.values()) == 1


async def test_a_deleted_run_starts_again(world: World) -> None:
    await world.facade.save(command(A))
    await world.facade.delete_run(RUN)
    await world.facade.save(command(A))
    assert counted(world).would_persist == {"FIRST_SAVE": 1, "HEAD_GONE": 1}
    assert counted(world).routes_wrong == 0, "the cache was told"


async def test_a_route_may_be_wrong(world: World) -> None:
    await world.facade.save(command(A))
    await world.memory.delete_run(RUN)  # another server
    await world.facade.save(command(A))
    assert counted(world).routes_wrong == 1


async def test_the_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "RUNS", 2)
    for number in range(3):
        for _ in range(2):
            await world.facade.save(command(A, key=RunKey("default", f"run-{number}")))
    assert counted(world).would_skip == 3


async def test_a_disagreement_is_counted_and_logged(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the comparison hash of a changed state were that of the head."""
    await world.facade.save(command(A))
    prepare = world.facade._paths.standard.prepare  # nothing else can go so wrong

    async def colliding(changed: SaveCommand, *, large: bool = False) -> Any:
        same = await prepare(command(A), large=large)
        return replace(await prepare(changed, large=large), comparison_hash=same.comparison_hash)

    monkeypatch.setattr(world.facade._paths.standard, "prepare", colliding)  # see above
    with caplog.at_level(logging.ERROR, logger="statekeep.shadow"):
        await world.facade.save(command(B))
    assert counted(world).disagreements == 1
    assert "fields_changed=1" in caplog.text
    assert "plan" not in caplog.text


@pytest.mark.parametrize("seed", range(5))
async def test_the_shadow_foresees_what_the_optimized_path_does(seed: int) -> None:
    """The same saves through both: the shadow counts what really happens there."""
    chance = random.Random(seed)
    saves = [
        (
            chance.choice([A, B, A | {"timestamp": number}]),
            chance.choice(["AUTO", "AUTO", "AUTO", "INTERMEDIATE", "MANUAL"]),
            chance.choice(["run-1", "run-2"]),
            chance.choice([0.0, 1.0, 120.0]),
        )
        for number in range(120)
    ]
    async with open_world(grouped=False, max_skips=4) as real:
        real.flags = OPTIMIZED
        outcomes = await replayed(real, saves)
        (_, path) = real.facade.statistics().paths
    async with open_world(grouped=False, max_skips=4) as world:
        world.flags = SHADOWED
        assert set(await replayed(world, saves)) == {Outcome.PERSISTED}
        found = counted(world)
    assert found.would_skip == outcomes.count(Outcome.SKIPPED) > 0
    assert found.would_persist == {
        reason: count for reason, count in path.decisions.items() if reason != Reason.UNCHANGED
    }
    assert found.disagreements == 0


async def replayed(world: World, saves: Sequence[tuple[Any, str, str, float]]) -> list[Outcome]:
    outcomes = []
    for state, kind, run, pause_s in saves:
        world.clock.advance(pause_s)
        ack = await world.facade.save(
            command(state, checkpoint_type=kind, key=RunKey("default", run))
        )
        outcomes.append(ack.result.outcome)
    return outcomes


def stored(memory: MemoryStateStore) -> Any:
    return repr(vars(memory))


async def test_the_shadow_leaves_no_trace_in_the_store() -> None:
    found = []
    for flags in (Flags(), SHADOWED):
        async with open_world(grouped=False) as world:
            world.flags = flags
            for state in (A, A, B):
                await world.facade.save(command(state))
            found.append((world.memory.statistics(), "would=Would" in stored(world.memory)))
    assert found[0] == found[1]
    assert not found[0][1]
