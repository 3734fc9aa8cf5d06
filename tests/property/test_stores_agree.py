"""The store in memory is the specification: SQLite answers every history as it does."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.config import Settings
from statekeep_server.domain.errors import AtomicBatchFailed, StateError
from statekeep_server.domain.model import ById, ByVersion, Newest, RunKey, Selector
from statekeep_server.domain.policy import SkipRules
from statekeep_server.service.ports import Append, Probe, StateStore
from statekeep_server.storage.memory_store import MemoryStateStore
from statekeep_server.storage.snapshot_ids import name_snapshot
from statekeep_server.storage.sql_store import open_sql_store
from tests.support.clock import ManualClock
from tests.support.stores import POOL, an_append, make_older, new_key

HOUR_US = 3_600_000_000
RULES = SkipRules(max_skip_age_us=HOUR_US, max_skips=2)

runs = st.sampled_from(["a", "b", "c"])
versions = st.integers(0, 4)


@dataclass(frozen=True)
class Save:
    """One save of a call; `expires` is in hours from now."""

    run: str
    state: bytes
    options: tuple[tuple[str, Any], ...]
    expires: int | None
    persists: bool
    skips: int


@dataclass(frozen=True)
class Step:
    """Something that is done to a store."""

    name: str
    arguments: tuple[Any, ...] = ()


options = st.fixed_dictionaries(
    {},
    optional={
        "request_id": st.sampled_from(["r1", "r2", "r3", "r4"]),
        "checkpoint_type": st.sampled_from(["AUTO", "MANUAL", "INTERMEDIATE"]),
        "is_recovery_point": st.booleans(),
        "expected_version": versions,
        "writer_sequence": st.integers(0, 3),
        "thread_id": st.sampled_from(["", "t1", "t2"]),
        "attempt": st.integers(1, 2),
    },
).map(lambda found: tuple(found.items()))

saves = st.builds(
    Save,
    run=runs,
    state=st.sampled_from([b'{"n": 1}', b'{"n": 2}', b'{"n": 1.0}']),
    options=options,
    expires=st.sampled_from([None, None, None, 1, 3]),
    persists=st.booleans(),
    skips=st.integers(0, 2),
)

steps = st.one_of(
    st.builds(Step, st.just("append"), st.tuples(st.lists(saves, min_size=1, max_size=5))),
    st.builds(Step, st.just("append"), st.tuples(st.lists(saves, min_size=1, max_size=5))),
    st.builds(Step, st.just("atomic"), st.tuples(st.lists(saves, min_size=1, max_size=4))),
    st.builds(Step, st.just("delete"), st.tuples(runs)),
    st.builds(Step, st.just("pass"), st.tuples(st.sampled_from([HOUR_US // 2, 2 * HOUR_US]))),
    st.builds(Step, st.just("sweep"), st.tuples(st.integers(1, 5))),
)


class Player:
    """Plays a history on a store and says all that it answers, times aside."""

    def __init__(self, store: StateStore, tenant: str) -> None:
        self.store = store
        self.tenant = tenant
        self.base_us = 0
        """When the history began, moved on with the clock: expiries must compare alike."""

    def key(self, run: str) -> RunKey:
        return RunKey(self.tenant, run)

    async def begin(self) -> None:
        self.base_us = (await self.store.barrier([Probe(self.key("-"), "")]))[0].now_us

    def prepare(self, save: Save, request_id: str) -> Append:
        options = {"request_id": request_id, **dict(save.options)}
        if save.expires:
            # A time is part of the fingerprint, and the stores' clocks differ: no reuse with it.
            expires_at_us = self.base_us + save.expires * HOUR_US
            options |= {"request_id": request_id, "expires_at_us": expires_at_us}
        return an_append(
            self.key(save.run),
            save.state,
            rules=None if save.persists else RULES,
            skips_in_a_row=save.skips,
            **options,
        )

    async def said(self, *, limit: int = 100) -> list[Any]:
        """Everything that can be read."""
        page = await self.store.list_runs(self.tenant, limit=limit)
        seen: list[Any] = [
            sorted((run.key, run.version, run.snapshot_id, run.thread_id) for run in page.runs)
        ]
        for run in ("a", "b", "c"):
            key = self.key(run)
            listed = await self.store.list_snapshots(key, limit=limit)
            seen.append(
                [replace(one, persisted_at_us=0, expires_at_us=0) for one in listed.snapshots]
            )
            (standing,) = await self.store.barrier([Probe(key, "r1")])
            head = standing.head
            seen.append(
                head
                and (head.version, head.snapshot_id, head.comparison_hash, head.writer_sequence)
            )
            seen.append(standing.earlier and standing.earlier.result)
            selectors: list[Selector] = [Newest(), ByVersion(1), ByVersion(3), ById("id-2")]
            for selector in selectors:
                try:
                    loaded = await self.store.load(key, selector)
                except StateError as error:
                    seen.append((type(error), error.metadata))
                else:
                    snapshot = loaded.snapshot
                    seen.append(
                        (snapshot.version, snapshot.state, snapshot.thread_id, loaded.head_version)
                    )
        return seen


async def play(player: Player, history: Sequence[Step], pass_time: Any) -> list[Any]:
    """Play a history; return what was answered."""
    numbers = itertools.count(1)
    said: list[Any] = []
    await player.begin()
    for step in history:
        match step:
            case Step("append" | "atomic", (found,)):
                appends = [player.prepare(save, f"new-{next(numbers)}") for save in found]
                try:
                    answers = await player.store.append_many(appends, atomic=step.name == "atomic")
                except AtomicBatchFailed as failed:
                    said.append((failed.index, type(failed.error)))
                else:
                    said += [
                        (type(a), a.metadata) if isinstance(a, StateError) else a for a in answers
                    ]
            case Step("delete", (run,)):
                said.append(await player.store.delete_run(player.key(run)))
            case Step("pass", (duration_us,)):
                player.base_us += await pass_time(duration_us)
            case Step("sweep", (limit,)):
                said.append(await player.store.sweep(limit=limit, request_results_before_us=0))
        said.append(player.store.statistics().rows_written)
        said += await player.said()
    return said


def ids() -> Any:
    """Ids that two stores make alike."""
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):08x}-0000-7000-8000-000000000000"


class NamingStore(MemoryStateStore):
    """Names its snapshots as the one on a database does."""

    def _name(self, version: int) -> str:
        return name_snapshot(super()._name(version), version)


async def play_both(history: Sequence[Step], url: str) -> tuple[list[Any], list[Any]]:
    tenant = new_key().run_id
    clock = ManualClock()
    engine = create_async_engine(url, poolclass=NullPool)

    async def advance(duration_us: int) -> int:
        clock.advance(duration_us / 1_000_000)
        return duration_us

    async def age(duration_us: int) -> int:
        await make_older(engine, duration_us)
        return 0

    in_memory = await play(Player(NamingStore(clock, ids()), tenant), history, advance)
    configured = Settings(database_url=url)
    async with open_sql_store(url, settings=configured, pool=POOL, new_id=ids()) as store:
        on_disk = await play(Player(store, tenant), history, age)
        # Nothing of this history may be swept in the next one.
        for run in ("a", "b", "c"):
            await store.delete_run(RunKey(tenant, run))
    await engine.dispose()
    return in_memory, on_disk


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("stores")
    return f"sqlite+aiosqlite:///{path}/state.db"


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
@given(history=st.lists(steps, min_size=1, max_size=6))
def test_sqlite_does_as_the_specification(url: str, history: list[Step]) -> None:
    in_memory, on_disk = asyncio.run(play_both(history, url))
    assert on_disk == in_memory
