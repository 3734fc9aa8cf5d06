"""Saves on a caller's session: staged, never remembered, with a fallback on the same session."""

from collections.abc import AsyncIterator

import pytest

from statekeep_server.domain.errors import InvalidField, StorageUnavailable
from statekeep_server.domain.model import LoadedState, Newest, Path, RunKey, SaveResult, Selector
from statekeep_server.flags import Flags
from statekeep_server.service.ports import Append
from tests.support.world import RUN, World, command, open_world

A = {"step": 1}
SESSION = object()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as opened:
        memory = opened.memory

        async def append(session: object, append: Append) -> SaveResult:
            assert session is SESSION
            (answer,) = await memory.append_many([append])
            assert isinstance(answer, SaveResult)
            return answer

        async def load(session: object, key: RunKey, selector: Selector) -> LoadedState:
            assert session is SESSION
            return await memory.load(key, selector)

        memory.append_in_session = append  # type: ignore[method-assign]  # memory has no sessions
        memory.load_in_session = load  # type: ignore[method-assign]  # memory has no sessions
        yield opened


async def test_a_staged_save_asks_no_barrier_and_fills_no_cache(world: World) -> None:
    ack = await world.facade.save_in_session(command(A), SESSION)
    assert (ack.path, ack.result.version) == (Path.OPTIMIZED, 1)
    assert world.optimized.calls == ["append_in_session"]
    assert world.heads.statistics().entries == 0


async def test_a_staged_save_forgets_what_the_cache_knew(world: World) -> None:
    await world.facade.save(command(A))
    assert world.heads.statistics().entries == 1
    await world.facade.save_in_session(command({"step": 2}), SESSION)
    assert world.heads.statistics().entries == 0


async def test_the_standard_path_stages_too(world: World) -> None:
    world.flags = Flags(enable_optimized_persistence=False)
    ack = await world.facade.save_in_session(command(A), SESSION)
    assert ack.path is Path.STANDARD


async def test_a_staged_save_falls_back_on_the_same_session(world: World) -> None:
    world.optimized.always["append_in_session"] = StorageUnavailable("LOCKED")
    ack = await world.facade.save_in_session(command(A), SESSION)
    assert ack.path is Path.STANDARD
    assert ack.fallback_cause is not None


async def test_a_bad_save_is_refused_before_the_session_is_touched(world: World) -> None:
    with pytest.raises(InvalidField):
        await world.facade.save_in_session(command(b"{"), SESSION)
    assert world.optimized.calls == []


async def test_a_session_loads_what_it_staged(world: World) -> None:
    await world.facade.save_in_session(command(A), SESSION)
    loaded = await world.facade.load(RUN, Newest(), session=SESSION)
    assert loaded.head_version == 1
