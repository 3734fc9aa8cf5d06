"""The store on PostgreSQL or SQLite: the port, put together from statements and transactions."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from statekeep_server.config import PoolSettings, Settings
from statekeep_server.domain.errors import StateError, StorageUnavailable
from statekeep_server.domain.model import (
    LoadedState,
    Newest,
    RunKey,
    SaveResult,
    Selector,
    Snapshot,
)
from statekeep_server.domain.policy import is_standing
from statekeep_server.service.ports import (
    Append,
    PoolStatistics,
    Probe,
    RunCursor,
    RunPage,
    SnapshotPage,
    Standing,
    StoreStatistics,
)
from statekeep_server.storage.appending import Appended, Appending
from statekeep_server.storage.chains import (
    Chains,
    FoundState,
    Rows,
    Statement,
    read_described,
    read_loaded,
    selected_version,
)
from statekeep_server.storage.durability import require_durable_postgresql, require_durable_sqlite
from statekeep_server.storage.engine import (
    UNCOUNTED,
    Engines,
    Timeouts,
    open_engines,
    release_idle,
)
from statekeep_server.storage.known_heads import DatabaseClock, KnownHeads
from statekeep_server.storage.lane import Lane, RawStatement
from statekeep_server.storage.loading import not_found
from statekeep_server.storage.newest import NewestStates
from statekeep_server.storage.one_statement import OneStatement, read_makers
from statekeep_server.storage.payloads import Payloads
from statekeep_server.storage.read_payloads import ReadPayloads
from statekeep_server.storage.read_then_write import ReadThenWrite
from statekeep_server.storage.reading import Reading, read_runs, read_snapshots
from statekeep_server.storage.removing import Removing
from statekeep_server.storage.schema import (
    SCHEMA_REVISION,
    read_revision,
    require_revision,
)
from statekeep_server.storage.sessions import connection_of, staging
from statekeep_server.storage.snapshot_ids import name_snapshot
from statekeep_server.storage.transactions import Done, StartOver, Transactions
from statekeep_server.storage.translate import LOCKED, READ_ONLY, translated
from statekeep_server.storage.urls import parse_database_url


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMemory:
    """What a store may remember, each in bytes; 0 is nothing."""

    heads_bytes: int = 0
    payloads_bytes: int = 0


NO_MEMORY = StoreMemory()

READ_SHARE = 4
"""A quarter of the payloads in memory are of versions that were read, the rest of those to build
on."""


@asynccontextmanager
async def open_sql_store(
    database_url: str,
    *,
    settings: Settings,
    pool: PoolSettings,
    new_id: Callable[[], str],
    memory: StoreMemory = NO_MEMORY,
    reads_first: bool = False,
) -> AsyncIterator["SqlStateStore"]:
    """Open a store on a database, verified; a SQLite database is created and migrated.

    With room for heads, saves are written in one statement where the database can do that (see
    `one_statement`); with room for payloads they are framed (see `payloads`). Without, each call
    is a locked save, or what `read_then_write` does if the store `reads_first`, and payloads are
    stored as they came.

    Raises InvalidField for a bad URL, SchemaMismatch, UnsafeDatabase, StorageUnavailable.
    """
    url = parse_database_url(database_url)
    timeouts = Timeouts(statement_s=settings.statement_timeout_s, lock_s=settings.lock_timeout_s)
    async with open_engines(url, pool=pool, timeouts=timeouts) as engines:
        await verify(engines, allow_unsafe_durability=settings.allow_unsafe_durability)
        store = SqlStateStore(engines, pool, new_id, memory)
        try:
            await store.open(reads_first=reads_first)
            engines.statements.sent = 0  # those that opened the store are not its work
            yield store
        finally:
            await store.close()


async def verify(engines: Engines, *, allow_unsafe_durability: bool) -> None:
    """Bring a SQLite database to this server's schema, or raise unless it fits and is durable."""
    found = await read_revision(engines.reader)
    if engines.url.is_sqlite and (found is None or found < SCHEMA_REVISION):
        # Imported late: Alembic takes its time, and most starts do not need it.
        from statekeep_server.storage.migrate import migrate_with

        found = (await migrate_with(engines)).reached
    require_revision(found)
    if not allow_unsafe_durability:
        await translated(_verify_durability(engines))


async def _verify_durability(engines: Engines) -> None:
    async with engines.writer.connect() as connection:
        if engines.url.is_sqlite:
            await require_durable_sqlite(connection)
        else:
            await require_durable_postgresql(connection)


class SqlStateStore:
    """Keeps states in a database. Implements `service.ports.StateStore`."""

    def __init__(
        self,
        engines: Engines,
        pool: PoolSettings,
        new_id: Callable[[], str],
        memory: StoreMemory,
    ) -> None:
        self._engines = engines
        self._pool = pool
        self._transactions = Transactions(engines)
        self._reading = Reading(engines.dialect)
        read_bytes = memory.payloads_bytes // READ_SHARE
        self._payloads = (
            Payloads(memory.payloads_bytes - read_bytes) if memory.payloads_bytes else None
        )
        self._read_payloads = ReadPayloads(read_bytes)
        self._chains = Chains(engines.dialect)
        self._raw_chains: dict[object, RawStatement] = {}

        def new_snapshot_id(version: int) -> str:
            return name_snapshot(new_id(), version)

        self._appending = Appending(engines.dialect, new_snapshot_id, self._payloads)
        self._removing = Removing(engines.dialect, self._appending)
        self._known = KnownHeads(memory.heads_bytes)
        self._clock = DatabaseClock(time.monotonic)
        # Behind a pooler every statement needs a transaction around it.
        can = engines.dialect.locks_rows and not engines.url.behind_pooler
        self._lanes: list[Lane] = []
        self._raw_barrier: RawStatement | None = None
        self._newest: NewestStates | None = None
        self._new_snapshot_id = new_snapshot_id
        self._one_statement: OneStatement | None = None
        self._read_then_write: ReadThenWrite | None = None
        self._speaks_to_driver = can
        if can and memory.heads_bytes:
            # Probes, loads and saves follow one another, each kind by itself.
            self._read_lane, self._load_lane, self._version_lane, self._write_lane = self._lanes = [
                self._new_lane() for _ in range(4)
            ]
            self._newest = NewestStates(engines.dialect)
            self._raw_barrier = RawStatement(self._reading.barrier_statement)

    def _new_lane(self) -> Lane:
        return Lane(self._engines, max_age_s=self._pool.pool_recycle_s, monotonic_s=time.monotonic)

    async def open(self, *, reads_first: bool) -> None:
        """Prepare what is asked of the database once. Raises StorageUnavailable."""
        if self._lanes:
            self._one_statement = OneStatement(
                self._write_lane,
                await read_makers(self._write_lane),
                self._known,
                self._clock,
                self._payloads,
                self._new_snapshot_id,
            )
        elif self._speaks_to_driver and reads_first:
            lane = self._new_lane()
            makers = await read_makers(lane)
            await lane.close()
            self._read_then_write = ReadThenWrite(
                self._engines, self._reading, makers, self._new_snapshot_id
            )

    async def close(self) -> None:
        """Give back the connections that are kept."""
        for lane in self._lanes:
            await lane.close()

    async def barrier(self, probes: Sequence[Probe]) -> Sequence[Standing]:
        """Read what stands, in one statement."""
        if not probes:
            return ()
        statement, parameters = self._reading.barrier(probes)
        rows: Sequence[Any]
        if self._raw_barrier is None:
            rows = await self._transactions.read(statement, parameters)
        else:
            raw = self._raw_barrier
            rows = await self._read_lane.read(raw.text, *raw.arguments(parameters))
        standings = self._reading.standings(probes, rows)
        if self._one_statement is not None:
            for probe, standing in zip(probes, standings, strict=True):
                self._known.read(probe.key, standing.head)
            self._clock.told(standings[0].now_us)
        return standings

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        """Decide and write saves in one transaction, or what that cannot do in a second one."""
        if self._read_then_write is not None and len(appends) == 1 and not atomic:
            async with self._transactions.passed():
                written = await self._read_then_write.append(appends[0])
            if written is not None:
                return [written]
        if self._one_statement is None or atomic:
            return await self._append_locked(appends, atomic=atomic)
        answers: list[SaveResult | Exception | None] = []
        answers += await self._one_statement.append(appends)
        rest = [index for index, answer in enumerate(answers) if answer is None]
        locked: Sequence[SaveResult | Exception]
        try:
            locked = await self._append_locked([appends[index] for index in rest], atomic=False)
        except StateError as error:
            if len(rest) == len(appends):
                raise
            locked = [error] * len(rest)  # the others are committed, and are told so
        for index, answer in zip(rest, locked, strict=True):
            answers[index] = answer
        return [answer for answer in answers if answer is not None]

    async def _append_locked(
        self, appends: Sequence[Append], *, atomic: bool
    ) -> Sequence[SaveResult | Exception]:
        if not appends:
            return ()

        async def work(connection: AsyncConnection, attempt: int) -> Done[Appended]:
            appended = await self._appending.append(
                connection, appends, atomic=atomic, insert_first=attempt > 1
            )
            return Done(appended, appended.decided.rows)

        appended = await self._transactions.write(work)
        decided = appended.decided
        if self._payloads is not None and appended.framed is not None:
            self._payloads.committed(appended.framed)
        if self._one_statement is not None:
            self._clock.told(decided.now_us)
            for key, moved in decided.heads.items():
                self._known.wrote(key, moved.head)
        return decided.answers

    async def append_in_session(self, session: object, append: Append) -> SaveResult:
        """Stage a save; its rows and statements are not counted, for they are the caller's."""
        connection = await connection_of(session, self._engines.dialect)
        try:
            return await translated(self._stage(connection, append))
        except StartOver:
            failure = StorageUnavailable(LOCKED)
        raise failure

    async def _stage(self, connection: AsyncConnection, append: Append) -> SaveResult:
        async with staging(connection, self._engines.dialect):
            appended = await self._appending.append(
                connection, [append], atomic=False, insert_first=False
            )
            answer = appended.decided.answers[0]
            if isinstance(answer, Exception):
                # Raised inside: the savepoint takes a head of version 0 away again.
                raise answer
            return answer

    async def load(self, key: RunKey, selector: Selector) -> LoadedState:
        """Read a snapshot with its state."""
        if self._read_payloads.holds(key, selected_version(selector)):
            rows = await self._read_rows(self._chains.describe(key, selector))
            again = self._read_payloads.complete(read_described(key, selector, rows))
            if again is not None:
                return again
        rows = await self._read_rows(self._chains.load(key, selector))
        found = read_loaded(key, selector, rows, self._read_payloads.of_run(key))
        self._remember(found)
        return found.loaded

    async def _read_rows(self, statement: Statement | None) -> Rows:
        if statement is None:
            return ()
        if not self._lanes:
            return await self._transactions.read(*statement)
        selection, parameters = statement
        raw = self._raw_chains.get(selection)
        if raw is None:
            raw = self._raw_chains[selection] = RawStatement(selection)
        async with self._transactions.passed():
            return await self._version_lane.read(raw.text, *raw.arguments(parameters))

    async def load_newest(self, keys: Sequence[RunKey]) -> Sequence[LoadedState | StateError]:
        """Read the newest snapshots of many runs, in one statement where there is one."""
        remembered = self.remembered(keys)
        if self._newest is not None:
            return await self._load_newest(self._newest, keys, remembered)
        probes = [Probe(key, "") for key in remembered]
        standings = dict(zip(remembered, await self.barrier(probes), strict=True))
        answers: list[LoadedState | StateError] = []
        for key in keys:
            snapshot = remembered.get(key)
            loaded = None if snapshot is None else _if_standing(snapshot, standings[key])
            answers.append(loaded or await self._load_or_error(key))
        return answers

    def remembered(self, keys: Sequence[RunKey]) -> dict[RunKey, Snapshot]:
        """What is in memory of the newest snapshots; it need not stand any more."""
        if self._payloads is None:
            return {}
        found = ((key, self._payloads.newest(key)) for key in keys)
        return {key: snapshot for key, snapshot in found if snapshot is not None}

    async def _load_newest(
        self, newest: NewestStates, keys: Sequence[RunKey], remembered: Mapping[RunKey, Snapshot]
    ) -> Sequence[LoadedState | StateError]:
        rows = await self._load_lane.read(newest.text, *newest.arguments(keys, remembered))
        answers: list[LoadedState | StateError] = []
        for key, found in zip(keys, newest.read(keys, remembered, rows), strict=True):
            if found is None:
                answers.append(await self._load_or_error(key))
                continue
            if isinstance(found, FoundState):
                self._remember(found)
                answers.append(found.loaded)
            else:
                answers.append(found)
        return answers

    async def _load_or_error(self, key: RunKey) -> LoadedState | StateError:
        try:
            return await self.load(key, Newest())
        except StateError as error:
            return error

    def _remember(self, found: FoundState) -> None:
        snapshot = found.loaded.snapshot
        if snapshot.version != found.loaded.head_version:
            self._read_payloads.remember(snapshot)
        elif self._payloads is not None:
            self._payloads.loaded(snapshot, found.chain)

    async def load_in_session(
        self, session: object, key: RunKey, selector: Selector
    ) -> LoadedState:
        """Read a snapshot with its state in the caller's transaction."""
        connection = await connection_of(session, self._engines.dialect)
        statement = self._chains.load(key, selector)
        if statement is None:
            raise not_found(key, selector)
        result = await translated(connection.execute(*statement))
        return read_loaded(key, selector, result.mappings().all()).loaded

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        """Read a page of snapshots."""
        statement = self._reading.list_snapshots(key, limit=limit, before_version=before_version)
        return read_snapshots(key, limit, await self._transactions.read(*statement))

    async def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None = None,
        user_id: str | None = None,
        after: RunCursor | None = None,
    ) -> RunPage:
        """Read a page of runs."""
        statement = self._reading.list_runs(
            tenant, limit=limit, thread_id=thread_id, user_id=user_id, after=after
        )
        return read_runs(tenant, limit, await self._transactions.read(*statement))

    async def delete_run(self, key: RunKey) -> int:
        """Delete a run."""

        async def work(connection: AsyncConnection, _attempt: int) -> Done[int]:
            return await self._removing.delete_run(connection, key)

        return await self._transactions.write(work)

    async def sweep(self, *, limit: int, request_results_before_us: int) -> int:
        """Delete a small batch of what has expired."""

        async def work(connection: AsyncConnection, _attempt: int) -> Done[int]:
            return await self._removing.sweep(
                connection, limit=limit, request_results_before_us=request_results_before_us
            )

        return await self._transactions.write(work)

    async def check(self) -> None:
        """Ask the database; on SQLite also become its writer for a moment."""
        uncounted = {UNCOUNTED: True}
        require_revision(await read_revision(self._engines.reader.execution_options(**uncounted)))
        await translated(self._check_writable(self._engines.writer.execution_options(**uncounted)))

    async def _check_writable(self, writer: AsyncEngine) -> None:
        async with writer.connect() as connection:
            await connection.begin()
            if await self._engines.dialect.is_read_only(connection):
                raise StorageUnavailable(READ_ONLY)

    async def release_idle(self) -> bool:
        """Close idle connections (see `service.retiring`); say whether none is left in use."""
        for lane in self._lanes:
            await lane.rest()
        return await release_idle(self._engines)

    async def connection_limit(self) -> int | None:
        """Count the connections that this store's role may open; None where nothing limits them.

        For comparison with what the pools of all servers may open.
        """
        statement = self._engines.dialect.connection_limit
        if statement is None:
            return None
        rows = await self._transactions.read(statement)
        limit: int = rows[0]["connection_limit"]
        return limit

    def statistics(self) -> StoreStatistics:
        """Count rows, statements and connections."""
        pool = self._engines.writer.pool
        has_pool = isinstance(pool, QueuePool) and not self._engines.url.is_sqlite
        return StoreStatistics(
            rows_written=self._transactions.rows_written
            + sum(one.rows_written for one in (self._one_statement, self._read_then_write) if one),
            statements=self._engines.statements.sent,
            pool=self._pool_statistics(pool) if has_pool else None,
        )

    def _pool_statistics(self, pool: Any) -> PoolStatistics:
        return PoolStatistics(
            pool_size=self._pool.pool_size,
            max_overflow=self._pool.max_overflow,
            pool_timeout_s=self._pool.pool_timeout_s,
            checked_out=pool.checkedout(),
            idle=pool.checkedin(),
        )


def _if_standing(snapshot: Snapshot, standing: Standing) -> LoadedState | None:
    """Answer with a snapshot from memory if a head says that it is the one that stands."""
    head = standing.head
    if head is None or not is_standing(head, standing.now_us):
        return None
    if head.snapshot_id != snapshot.snapshot_id:
        return None
    return LoadedState(snapshot=snapshot, head_version=head.version)
