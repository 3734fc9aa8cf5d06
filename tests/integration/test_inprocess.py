"""The in-process interface: both services, both databases, a caller's own session."""

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from statekeep_server.config import Settings
from statekeep_server.domain.errors import (
    CommitUnknown,
    InvalidField,
    StorageUnavailable,
    VersionConflict,
)
from statekeep_server.inprocess import (
    DeepAgentState,
    StatePersistenceRequest,
    StatePersistenceService,
    open_state_persistence,
)
from statekeep_server.service.facade import StateFacade


@pytest.fixture(params=[False, True], ids=["standard", "optimized"])
async def service(
    request: pytest.FixtureRequest, database_url: str
) -> AsyncIterator[StatePersistenceService]:
    settings = Settings(database_url=database_url, enable_optimized_persistence=request.param)
    async with open_state_persistence(settings) as opened:
        yield opened


def ask(state: dict[str, Any] | BaseModel, **options: Any) -> StatePersistenceRequest:
    options = {"run_id": "run", "thread_id": "thread", "user_id": "user", **options}
    return StatePersistenceRequest(state_data=state, **options)


async def test_a_state_comes_back_as_it_was(service: StatePersistenceService) -> None:
    state = {"user_request": "fly", "step_count": 3, "ours": {"deep": [1, 2**70, 1.5, None, "ü"]}}
    done, snapshot_id = await service.save_agent_state(ask(state))
    assert done
    loaded = await service.load_agent_state("run")
    assert isinstance(loaded, DeepAgentState)
    assert loaded.user_request == "fly"
    assert loaded.model_dump(exclude_unset=True) == state
    by_id = await service.load_agent_state("run", snapshot_id)
    assert by_id == loaded


async def test_what_is_not_there_is_none(service: StatePersistenceService) -> None:
    assert await service.load_agent_state("nobody") is None
    _, snapshot_id = await service.save_agent_state(ask({"a": 1}, run_id="other"))
    assert await service.load_agent_state("run", snapshot_id) is None


async def test_an_id_that_no_run_can_have_is_refused(service: StatePersistenceService) -> None:
    for run_id in ("", "line\nbreak", "x" * 300):
        with pytest.raises(InvalidField):
            await service.load_agent_state(run_id)


async def test_a_model_is_saved_like_its_fields(service: StatePersistenceService) -> None:
    class Plan(BaseModel):
        goal: str
        step_count: int = 0

    done, _ = await service.save_agent_state(ask(Plan(goal="home")))
    assert done
    loaded = await service.load_agent_state("run")
    assert loaded is not None
    assert loaded.model_dump(exclude_unset=True) == {"goal": "home"}


async def test_types_are_taken_in_any_case(service: StatePersistenceService) -> None:
    for kind in ("auto", "AUTO", "manual", "periodic"):
        done, _ = await service.save_agent_state(ask({"a": 1}, checkpoint_type=kind))
        assert done


async def test_a_conflict_raises(service: StatePersistenceService) -> None:
    await service.save_agent_state(ask({"a": 1}))
    with pytest.raises(VersionConflict):
        await service.save_agent_state(ask({"a": 2}, expected_version=7))


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}, b"bytes"])
async def test_what_is_no_json_raises(service: StatePersistenceService, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        await service.save_agent_state(ask({"a": value}))
    assert caught.value.field == "state_data"


async def test_context_and_expiry(service: StatePersistenceService) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    context = {"model": "m", "tokens": 12}
    done, _ = await service.save_agent_state(
        ask({"a": 1}, execution_context=context, expires_at=soon)
    )
    assert done
    with pytest.raises(InvalidField) as caught:
        await service.save_agent_state(ask({"a": 1}, expires_at=datetime(2030, 1, 1)))  # noqa: DTZ001  # what is refused
    assert caught.value.field == "expires_at"


async def test_statistics(service: StatePersistenceService) -> None:
    await service.save_agent_state(ask({"a": 1}))
    found = service.get_cache_stats()
    assert found["max_entries"] > 0
    assert found["hit_rate"] == found["routes_right_rate"] == 0.0
    assert service.kpis().skip_rate == 0.0
    assert sum(path.persisted for path in service.statistics().paths) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(StorageUnavailable("UNREACHABLE"), False), (CommitUnknown(), None)],
    ids=["certainly not saved", "perhaps saved"],
)
async def test_false_means_certainly_not_saved(
    service: StatePersistenceService,
    error: StorageUnavailable,
    outcome: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(StateFacade, "save", fail)
    if outcome is None:
        with pytest.raises(CommitUnknown):
            await service.save_agent_state(ask({"a": 1}))
    else:
        assert await service.save_agent_state(ask({"a": 1})) == (False, None)


# A caller's own session


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(database_url)
    yield made
    await made.dispose()


async def test_a_session_stages_until_it_commits(
    service: StatePersistenceService, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session:
        done, snapshot_id = await service.save_agent_state(ask({"a": 1}), session)
        assert done
        assert await service.load_agent_state("run") is None, "not committed yet"
        staged = await service.load_agent_state("run", snapshot_id, session)
        assert staged is not None
        await session.commit()
    loaded = await service.load_agent_state("run")
    assert loaded is not None
    assert loaded.model_dump(exclude_unset=True) == {"a": 1}


async def test_a_rolled_back_session_leaves_nothing(
    service: StatePersistenceService, engine: AsyncEngine
) -> None:
    await service.save_agent_state(ask({"a": 1}))
    async with AsyncSession(engine) as session:
        await service.save_agent_state(ask({"a": 2}), session)
        await session.rollback()
    loaded = await service.load_agent_state("run")
    assert loaded is not None
    assert loaded.model_dump(exclude_unset=True) == {"a": 1}
    done, _ = await service.save_agent_state(ask({"a": 2}))
    assert done
    again = await service.load_agent_state("run")
    assert again is not None
    assert again.model_dump(exclude_unset=True) == {"a": 2}


async def test_a_refused_save_leaves_the_session_usable(
    service: StatePersistenceService, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session:
        await service.save_agent_state(ask({"a": 1}), session)
        with pytest.raises(VersionConflict):
            await service.save_agent_state(ask({"a": 2}, expected_version=9), session)
        await service.save_agent_state(ask({"a": 3}), session)
        await session.commit()
    loaded = await service.load_agent_state("run")
    assert loaded is not None
    assert loaded.model_dump(exclude_unset=True) == {"a": 3}


@pytest.mark.postgresql
async def test_a_session_that_holds_a_run_does_not_stall_others(postgresql_url: str) -> None:
    """Saves of the held run wait for it by themselves; the group goes on without them."""
    settings = Settings(
        database_url=postgresql_url, enable_optimized_persistence=True, lock_timeout_s=30.0
    )
    engine = create_async_engine(postgresql_url)
    async with open_state_persistence(settings) as service:
        for run in ("held", "free"):
            await service.save_agent_state(ask({"a": 0}, run_id=run))
        async with AsyncSession(engine) as session:
            await service.save_agent_state(ask({"a": 1}, run_id="held"), session)
            waiting = asyncio.create_task(service.save_agent_state(ask({"a": 2}, run_id="held")))
            await asyncio.sleep(0.5)
            for step in range(1, 20):
                done, _ = await service.save_agent_state(ask({"a": step}, run_id="free"))
                assert done
            assert not waiting.done(), "the holder has not committed yet"
            await session.commit()
        assert (await waiting)[0]
        loaded = await service.load_agent_state("held")
        assert loaded is not None
        assert loaded.model_dump(exclude_unset=True) == {"a": 2}
        optimized = service.statistics().paths[1]
        assert optimized.fallbacks == {"STORAGE_UNAVAILABLE": 1}
    await engine.dispose()


@pytest.mark.postgresql
async def test_a_run_that_stays_held_is_told_so(postgresql_url: str) -> None:
    settings = Settings(
        database_url=postgresql_url, enable_optimized_persistence=True, lock_timeout_s=0.2
    )
    engine = create_async_engine(postgresql_url)
    async with open_state_persistence(settings) as service:
        async with AsyncSession(engine) as session:
            await service.save_agent_state(ask({"a": 1}), session)
            assert await service.save_agent_state(ask({"a": 2})) == (False, None)
            await session.commit()
        done, _ = await service.save_agent_state(ask({"a": 2}))
        assert done
    await engine.dispose()
