"""Whether a database keeps its promise: an acknowledged commit survives a crash.

A skip leans on a commit of the past, so a database that may lose commits would turn "unchanged"
into "lost" long after.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.domain.errors import Failed

ON = "on"
PROMISES = ("fsync", "full_page_writes")
OVERRIDE = "allow_unsafe_durability"


class UnsafeDatabase(Failed):
    """The database may lose acknowledged commits; `why` says by what."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


async def require_durable_postgresql(connection: AsyncConnection) -> None:
    """Raise UnsafeDatabase unless commits of this session survive a crash of the server."""
    settings = ("synchronous_commit", *PROMISES)
    statement = select(func.pg_is_in_recovery(), *(func.current_setting(name) for name in settings))
    replica, synchronous_commit, *promises = (await connection.execute(statement)).one()
    if replica:
        raise _unsafe("it is a replica, and answers from the past")
    if synchronous_commit == "off":
        raise _unsafe("synchronous_commit is off")
    for name, value in zip(PROMISES, promises, strict=True):
        if value != ON:
            raise _unsafe(f"{name} is {value}")


async def require_durable_sqlite(connection: AsyncConnection) -> None:
    """Raise UnsafeDatabase unless commits of this connection survive a power cut."""
    journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
    if journal != "wal":
        # For example on a network drive, which cannot share memory.
        raise _unsafe(f"its journal mode is {journal} and cannot be WAL")
    synchronous: int = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    if synchronous < 2:
        raise _unsafe("its connections are not synchronous = FULL")


def _unsafe(why: str) -> UnsafeDatabase:
    return UnsafeDatabase(
        f"the database may lose acknowledged saves: {why}. "
        f"Cure it, or allow it in as many words ({OVERRIDE})",
        why,
    )
