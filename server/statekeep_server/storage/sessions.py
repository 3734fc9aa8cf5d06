"""A caller's own session: a save staged under a savepoint in a transaction that is not ours.

Nothing is committed here, and no connection of ours is used. The save waits only briefly for the
lock of its run: the holder may be the writer of many other runs, or, in the worst case, wait for
the caller.

On SQLite the caller's connection becomes the one writer of the file until the caller ends its
transaction: everybody else waits, this store included. Its driver begins transactions late and
would end one with the savepoint, so it is begun here where that has not happened.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from statekeep_server.storage.dialect import Dialect

LOCK_WAIT_MS = 250
"""Several commits on a slow disk; well under the second after which a deadlock is looked for."""


async def connection_of(session: object, dialect: Dialect) -> AsyncConnection:
    """Return the connection of a session.

    Raises TypeError for what is not an AsyncSession or AsyncConnection on a database of the
    store's kind.
    """
    if isinstance(session, AsyncSession):
        session = await session.connection()
    if not isinstance(session, AsyncConnection):
        raise TypeError(f"an AsyncSession or AsyncConnection, not {type(session).__name__}")
    if session.dialect.name != dialect.name:
        raise TypeError(f"a session on {dialect.name}, not on {session.dialect.name}")
    return session


@asynccontextmanager
async def staging(connection: AsyncConnection, dialect: Dialect) -> AsyncIterator[None]:
    """Work under a savepoint, which an error rolls back, with a short wait for locks."""
    await dialect.ensure_transaction(connection)
    async with connection.begin_nested():
        before = await dialect.limit_lock_wait(connection, LOCK_WAIT_MS)
        yield
        # After an error the savepoint brings the old limit back.
        await dialect.restore_lock_wait(connection, before)
