"""Transactions and single reads: what is done again, and what is said when a commit is lost.

Work that failed before its COMMIT was sent has changed nothing, so it is done again where that
may help: on a new connection when the old one was dead, or when the database rolled back in
favour of another transaction. Once COMMIT was sent, an error that is not the database's own
answer leaves the outcome unknown, and says so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Generic, TypeVar

from sqlalchemy import Executable, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.domain.errors import CommitUnknown, StorageUnavailable
from statekeep_server.domain.values import value_class
from statekeep_server.storage.engine import Engines
from statekeep_server.storage.translate import (
    DRIVER_ERRORS,
    LOCKED,
    Diagnosis,
    diagnose,
    unavailable,
    with_cause,
)

T = TypeVar("T")

MAX_ATTEMPTS = 4
"""A transaction that lost three times in a row meets more contention than patience helps."""

BACK_OFF_S = 0.01
"""Times the attempt: nothing beside the second in which the database found a deadlock."""


@value_class()
class Done(Generic[T]):
    """What a transaction did: its answer, and how many rows it wrote; 0 is rolled back."""

    answer: T
    rows: int


class StartOver(Exception):
    """Roll back and begin again: what the work found cannot be dealt with in this transaction."""


class Transactions:
    """Runs work on one database and counts the rows that it committed."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self.rows_written = 0

    def passed(self) -> AbstractAsyncContextManager[None]:
        """Wait at the gate before the pool, where there is one."""
        gate = self._engines.gate
        return nullcontext() if gate is None else gate.passed()

    async def read(
        self, statement: Executable, parameters: Mapping[str, object] | None = None
    ) -> Sequence[RowMapping]:
        """Read with one statement.

        Raises StorageUnavailable.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._read(statement, parameters)
            except DRIVER_ERRORS as error:
                diagnosis = diagnose(error)
                if attempt == 1 and (diagnosis.disconnected or diagnosis.transient):
                    continue
                failure = unavailable(error)
            # Raised out here, or the driver's error would be its context.
            raise failure

    async def _read(
        self, statement: Executable, parameters: Mapping[str, object] | None
    ) -> Sequence[RowMapping]:
        async with self.passed(), self._engines.reader.connect() as connection:
            result = await connection.execute(statement, dict(parameters or {}))
            return result.mappings().all()

    async def write(self, work: Callable[[AsyncConnection, int], Awaitable[Done[T]]]) -> T:
        """Run work in a transaction and answer after its commit.

        `work` gets the connection and the number of the attempt, from 1; it may be run again,
        also by raising `StartOver`. Other errors of its own roll back and come out.

        Raises StorageUnavailable when nothing was committed, CommitUnknown when nobody knows.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._write(work, attempt)
            except StartOver:
                failure, again, pause_s = StorageUnavailable(LOCKED), attempt < MAX_ATTEMPTS, 0.0
            except DRIVER_ERRORS as error:
                diagnosis, failure = diagnose(error), unavailable(error)
                again = _worth_another(diagnosis, attempt)
                # The other one must get the lock that this one gave up for it.
                pause_s = attempt * BACK_OFF_S if diagnosis.transient else 0.0
            # Raised out here, or the driver's error would be its context.
            if not again:
                raise failure
            await asyncio.sleep(pause_s)

    async def _write(
        self, work: Callable[[AsyncConnection, int], Awaitable[Done[T]]], attempt: int
    ) -> T:
        async with self.passed(), self._engines.writer.connect() as connection:
            await connection.begin()
            done = await work(connection, attempt)
            if done.rows:
                await _commit(connection)
                self.rows_written += done.rows
            else:
                await connection.rollback()
            return done.answer


def _worth_another(diagnosis: Diagnosis, attempt: int) -> bool:
    # A dead connection takes the others of the pool with it: the second is a new one.
    return (diagnosis.transient and attempt < MAX_ATTEMPTS) or (
        diagnosis.disconnected and attempt == 1
    )


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except DRIVER_ERRORS as error:
        # It may still be in its transaction: whoever got it next would read what is not committed.
        await connection.invalidate()
        if diagnose(error).answered:
            raise
        failure = with_cause(CommitUnknown(), error)
    else:
        return
    raise failure
