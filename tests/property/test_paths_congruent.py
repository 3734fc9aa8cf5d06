"""Standard and optimized differ in cost, never in truth.

The same saves go to both. Whatever optimized skipped, its newest state equals that of standard,
ignored fields aside; every skip names the snapshot that stands; every version is dense.
"""

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.domain.model import (
    KNOWN_TYPES,
    SKIPPABLE_TYPES,
    Newest,
    Outcome,
    RunKey,
    SaveCommand,
)
from statekeep_server.flags import Flags
from tests.support.world import World, command, open_world

RUNS = [RunKey("default", name) for name in ("one", "two")]

saves = st.builds(
    lambda run, step, beat, kind, recovery, phase: command(
        {"step": step, "heartbeat_count": beat},
        key=run,
        checkpoint_type=kind,
        is_recovery_point=recovery,
        agent_phase=phase,
    ),
    run=st.sampled_from(RUNS),
    step=st.integers(0, 2),
    beat=st.integers(0, 3),
    kind=st.sampled_from([*sorted(KNOWN_TYPES), "AUTO", "AUTO", "AUTO", "UNKNOWN_77"]),
    recovery=st.sampled_from([False, False, False, True]),
    phase=st.sampled_from(["", "", "plan"]),
)


def naive(save: SaveCommand) -> object:
    """What a naive reader compares of these saves."""
    return save.state.split(b",")[0], save.agent_phase


async def replay(world: World, sequence: list[SaveCommand]) -> list[tuple[str, int]]:
    answers = []
    for save in sequence:
        ack = await world.facade.save(save)
        answers.append((str(ack.result.outcome), ack.result.version))
    return answers


async def check(sequence: list[SaveCommand]) -> None:
    async with open_world() as standard, open_world() as optimized:
        standard.flags = Flags(enable_optimized_persistence=False)
        plain = await replay(standard, sequence)
        clever = await replay(optimized, sequence)

        assert all(outcome == Outcome.PERSISTED for outcome, _ in plain)
        kept: dict[RunKey, object] = {}
        versions: dict[RunKey, int] = {}
        for save, (outcome, version) in zip(sequence, clever, strict=True):
            skippable = save.checkpoint_type in SKIPPABLE_TYPES and not save.is_recovery_point
            expect_skip = skippable and kept.get(save.key) == naive(save)
            assert (outcome == Outcome.SKIPPED) == expect_skip
            versions[save.key] = versions.get(save.key, 0) + (not expect_skip)
            assert version == versions[save.key]
            kept[save.key] = naive(save)
        for key in {save.key for save in sequence}:
            one = (await standard.facade.load(key, Newest())).snapshot
            other = (await optimized.facade.load(key, Newest())).snapshot
            assert one.comparison_hash == other.comparison_hash


@settings(max_examples=150, deadline=None)
@given(st.lists(saves, max_size=25))
def test_both_paths_tell_the_same_truth(sequence: list[SaveCommand]) -> None:
    asyncio.run(check(sequence))


@settings(max_examples=100, deadline=None)
@given(st.lists(saves, max_size=12), st.booleans())
def test_a_batch_decides_like_its_saves_one_by_one(
    sequence: list[SaveCommand], atomic: bool
) -> None:
    async def compare() -> None:
        async with open_world() as single, open_world() as batched:
            one_by_one = await replay(single, sequence)
            answers = await batched.facade.save_many(
                [replace(save) for save in sequence], atomic=atomic
            )
            together = []
            for answer in answers:
                assert not isinstance(answer, Exception), answer
                together.append((str(answer.result.outcome), answer.result.version))
            assert together == one_by_one

    asyncio.run(compare())
