"""Lanes: a connection kept for statements that follow one another, and statements as it takes them.

A pool, and SQLAlchemy around each statement, cost several times what the driver itself takes. The
groups send one statement after another, so each keeps a connection for itself and speaks to the
driver. PostgreSQL only; behind a pooler there are no lanes, for there every statement needs a
transaction around it.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.storage.engine import Engines
from statekeep_server.storage.translate import diagnose, translated, unavailable

RAW_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What comes out of the driver where SQLAlchemy does not stand in between.

The internal error is that of a connection which the server ended while nobody used it.
"""


class RawStatement:
    """A statement of SQLAlchemy as the driver takes it."""

    def __init__(self, statement: ClauseElement) -> None:
        # SQLAlchemy gives its dialects no types.
        compiled: Any = statement.compile(dialect=dialect.dialect())  # type: ignore[no-untyped-call]
        self.text = str(compiled)
        self._fixed: Mapping[str, object] = compiled.params
        self._names: Sequence[str] = compiled.positiontup or ()

    def arguments(self, parameters: Mapping[str, object]) -> list[object]:
        """Put the parameters in the order of their places."""
        fixed = self._fixed
        return [parameters.get(name, fixed[name]) for name in self._names]


class Wire:
    """A connection of the pool, spoken to below SQLAlchemy."""

    def __init__(self, engines: Engines, connection: AsyncConnection, driver: Any) -> None:
        self._engines = engines
        self._connection = connection
        self._driver = driver

    @classmethod
    async def take(cls, engines: Engines) -> "Wire":
        """Take a connection of the pool. Raises StorageUnavailable."""
        # Nobody begins a transaction below SQLAlchemy, so the writer's connections do as well: the
        # reader's change their isolation level when they are taken and when they are given back.
        connection = engines.writer.connect()
        await translated(connection.start())
        raw = await connection.get_raw_connection()
        return cls(engines, connection, raw.driver_connection)

    async def fetch(self, text: str, *arguments: object) -> Sequence[Any]:
        """Send one statement, a transaction of its own.

        Raises what the driver raises. Nobody uses the connection again then, unless the database
        answered.
        """
        self._engines.statements.sent += 1
        answered = False
        try:
            rows: Sequence[Any] = await self._driver.fetch(text, *arguments)
            answered = True
        except asyncpg.PostgresError as error:
            answered = diagnose(error).answered
            raise
        finally:
            if not answered:
                self._driver.terminate()  # without a word to a server that may be frozen
                await self._connection.invalidate()
        return rows

    async def close(self) -> None:
        """Give the connection back."""
        await self._connection.close()

    @property
    def is_closed(self) -> bool:
        """Whether the connection is no more."""
        closed: bool = self._driver.is_closed()
        return closed


class Lane:
    """One connection, opened when it is needed, and again when it broke or is too old.

    What comes while it is busy takes another one of the pool.

    Args:
        max_age_s: After so many seconds the connection is given back for another.
    """

    def __init__(
        self, engines: Engines, *, max_age_s: float, monotonic_s: Callable[[], float]
    ) -> None:
        self._engines = engines
        self._max_age_s = max_age_s
        self._monotonic_s = monotonic_s
        self._kept: Wire | None = None
        self._opened_s = 0.0
        self._busy = False

    async def fetch(self, text: str, *arguments: object) -> Sequence[Any]:
        """Send one statement, a transaction of its own.

        Raises StorageUnavailable when there is no connection to send it on, and what `Wire.fetch`
        raises once it is sent.
        """
        if self._busy:
            async with one_wire(self._engines) as wire:
                return await wire.fetch(text, *arguments)
        self._busy = True
        try:
            kept = self._kept
            if kept is None or self._is_stale(kept):
                await self.close()
                self._kept = kept = await Wire.take(self._engines)
                self._opened_s = self._monotonic_s()
            return await kept.fetch(text, *arguments)
        finally:
            self._busy = False

    async def read(self, text: str, *arguments: object) -> Sequence[Any]:
        """Send a statement that only reads, twice if the connection turns out to be dead.

        Raises StorageUnavailable.
        """
        again = True
        while True:
            try:
                return await self.fetch(text, *arguments)
            except RAW_ERRORS as error:
                diagnosis = diagnose(error)
                failure = unavailable(error)
            # Raised out here, or the driver's error would be its context.
            if not again or not (diagnosis.disconnected or diagnosis.transient):
                raise failure
            again = False

    async def close(self) -> None:
        """Give the connection back."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()

    async def rest(self) -> None:
        """Give the connection back unless it is busy; the next statement takes one again."""
        if not self._busy:
            await self.close()

    def _is_stale(self, kept: Wire) -> bool:
        return kept.is_closed or self._monotonic_s() - self._opened_s > self._max_age_s


@asynccontextmanager
async def one_wire(engines: Engines) -> AsyncIterator[Wire]:
    """Have a connection of the pool for the time of the context. Raises StorageUnavailable."""
    wire = await Wire.take(engines)
    try:
        yield wire
    finally:
        await wire.close()
