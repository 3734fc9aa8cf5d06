"""The revision of the schema: which one this server needs, and which one a database has."""

from sqlalchemy import column, select, table
from sqlalchemy.ext.asyncio import AsyncEngine

from statekeep_server.domain.errors import SchemaMismatch
from statekeep_server.storage.translate import DRIVER_ERRORS, diagnose, unavailable

SCHEMA_REVISION = "0004"
"""The newest migration's, and the only one that this server works with."""

VERSION_TABLE = "statekeep_schema_version"
"""Not Alembic's default name: the database may hold an application's tables beside ours."""

found_revision = select(table(VERSION_TABLE, column("version_num")).c.version_num)


async def read_revision(engine: AsyncEngine) -> str | None:
    """Return the revision of a database; None when it has no schema of ours.

    Raises StorageUnavailable.
    """
    try:
        async with engine.connect() as connection:
            return (await connection.execute(found_revision)).scalar_one_or_none()
    except DRIVER_ERRORS as error:
        if diagnose(error).no_table:
            return None
        failure = unavailable(error)
    raise failure


def require_revision(found: str | None) -> None:
    """Raise SchemaMismatch unless a database has the schema that this server needs."""
    if found != SCHEMA_REVISION:
        raise SchemaMismatch(found, SCHEMA_REVISION)
