"""Every store against every requirement of the suite, bare and inside the wrappers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.domain.audit import AuditRecord
from statekeep_server.domain.model import RunKey
from statekeep_server.service.ports import StateStore
from statekeep_server.storage.memory_store import MemoryStateStore
from statekeep_server.storage.sql_store import StoreMemory
from statekeep_server.storage.tables import snapshots
from tests.conformance.store_suite import REQUIREMENTS
from tests.conformance.subject import Subject
from tests.support.clock import ManualClock
from tests.support.faults import FaultyStore
from tests.support.stores import a_store, make_older, new_id, read_audit

WRAPPERS: dict[str, Callable[[StateStore], StateStore]] = {
    "bare": lambda store: store,
    # The store that injects faults: without one it must not be noticed.
    "faulty": FaultyStore,
    # A store that remembers heads and payloads: it saves in one statement, and frames.
    "knowing": lambda store: store,
    # A store that reads what stands, and writes where it still stands.
    "reading": lambda store: store,
}

EXCLUDED: dict[tuple[str, str], str] = {}
"""(store, requirement): why that store need not meet it."""


@asynccontextmanager
async def in_memory() -> AsyncIterator[Subject]:
    """The store in memory, whose clock is turned by hand."""
    clock = ManualClock()
    store = MemoryStateStore(clock, new_id)

    async def another() -> StateStore:
        return store

    async def pass_time(duration_us: int) -> None:
        clock.advance(duration_us / 1_000_000)

    async def audit(key: RunKey) -> Sequence[AuditRecord]:
        return store.audit[key]

    async def tamper(key: RunKey) -> None:
        for name, snapshot in store._snapshots.items():
            if name[0] == key:
                changed = replace(snapshot, state=(snapshot.state or b"")[::-1])
                store._snapshots[name] = changed

    yield Subject(store, another, pass_time, audit, tamper)


@asynccontextmanager
async def database(
    url: str, memory: StoreMemory, *, reads_first: bool = False
) -> AsyncIterator[Subject]:
    """A store on a database; below it, rows are made older instead of waiting."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with AsyncExitStack() as stack:

        async def open_store() -> StateStore:
            store = a_store(url, memory=memory, reads_first=reads_first)
            return await stack.enter_async_context(store)

        async def audit(key: RunKey) -> Sequence[AuditRecord]:
            return await read_audit(engine, key)

        async def pass_time(duration_us: int) -> None:
            await make_older(engine, duration_us)

        async def tamper(key: RunKey) -> None:
            of_run = snapshots.c.run_id == key.run_id
            async with engine.begin() as connection:
                state = (
                    await connection.execute(select(snapshots.c.state).where(of_run))
                ).scalar_one()
                await connection.execute(update(snapshots).where(of_run).values(state=state[::-1]))

        yield Subject(await open_store(), open_store, pass_time, audit, tamper)


STORES = ("memory", "sqlite", "postgresql")


@pytest.fixture(
    params=[
        "memory-bare",
        "memory-faulty",
        "sqlite-bare",
        "sqlite-knowing",
        pytest.param("postgresql-bare", marks=pytest.mark.postgresql),
        pytest.param("postgresql-knowing", marks=pytest.mark.postgresql),
        pytest.param("postgresql-reading", marks=pytest.mark.postgresql),
    ]
)
def opening(
    request: pytest.FixtureRequest, requirement: str
) -> AbstractAsyncContextManager[Subject]:
    """A store on fresh data, in a wrapper, not opened yet."""
    kind, wrapper = request.param.split("-")
    if (kind, requirement) in EXCLUDED:
        pytest.skip(EXCLUDED[kind, requirement])
    if kind == "memory":
        return wrapped(in_memory(), WRAPPERS[wrapper])
    room = 1_000_000 if wrapper == "knowing" else 0
    url = request.getfixturevalue(f"{kind}_url")
    memory = StoreMemory(heads_bytes=room, payloads_bytes=room)
    opened = database(url, memory, reads_first=wrapper == "reading")
    return wrapped(opened, WRAPPERS[wrapper])


@asynccontextmanager
async def wrapped(
    opening: AbstractAsyncContextManager[Subject], wrap: Callable[[StateStore], StateStore]
) -> AsyncIterator[Subject]:
    """Open a subject and put its store into a wrapper."""
    async with opening as bare:
        yield replace(bare, store=wrap(bare.store))


@pytest.fixture
async def subject(opening: AbstractAsyncContextManager[Subject]) -> AsyncIterator[Subject]:
    """A store on fresh data."""
    async with opening as subject:
        yield subject


@pytest.mark.parametrize("requirement", REQUIREMENTS)
async def test_requirement(subject: Subject, requirement: str) -> None:
    async with asyncio.timeout(60):
        await REQUIREMENTS[requirement](subject)


def test_every_requirement_says_what_it_requires() -> None:
    assert all(requirement.__doc__ for requirement in REQUIREMENTS.values())
    assert set(EXCLUDED) <= {(store, name) for store in STORES for name in REQUIREMENTS}
