"""What errors of the drivers mean."""

import asyncio
import sqlite3

import asyncpg
import pytest
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.storage.translate import diagnose, translated, unavailable

STATEMENT = "SELECT 's3cr3t'"


def from_asyncpg(error: Exception) -> exc.DBAPIError:
    """An error of asyncpg as SQLAlchemy hands it out."""
    adapted = AsyncAdapt_asyncpg_dbapi.Error("s3cr3t", error)  # type: ignore[no-untyped-call]  # SQLAlchemy's
    return exc.DBAPIError(STATEMENT, {"state": "s3cr3t"}, adapted)


def from_sqlite(code: int) -> exc.OperationalError:
    """An error of SQLite as SQLAlchemy hands it out."""
    error = sqlite3.OperationalError("s3cr3t")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_SOMETHING"
    return exc.OperationalError(STATEMENT, {"state": "s3cr3t"}, error)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (from_asyncpg(asyncpg.LockNotAvailableError("s3cr3t")), "LOCKED"),
        (from_asyncpg(asyncpg.DeadlockDetectedError("s3cr3t")), "LOCKED"),
        (from_asyncpg(asyncpg.SerializationError("s3cr3t")), "LOCKED"),
        (from_asyncpg(asyncpg.ReadOnlySQLTransactionError("s3cr3t")), "READ_ONLY"),
        (from_asyncpg(asyncpg.DiskFullError("s3cr3t")), "FULL"),
        (from_asyncpg(asyncpg.QueryCanceledError("s3cr3t")), "TIMEOUT"),
        (from_asyncpg(asyncpg.IdleInTransactionSessionTimeoutError("s3cr3t")), "TIMEOUT"),
        (from_asyncpg(asyncpg.AdminShutdownError("s3cr3t")), "UNREACHABLE"),
        (from_asyncpg(asyncpg.CannotConnectNowError("s3cr3t")), "UNREACHABLE"),
        (from_asyncpg(asyncpg.TooManyConnectionsError("s3cr3t")), "UNREACHABLE"),
        (from_asyncpg(asyncpg.ConnectionDoesNotExistError("s3cr3t")), "UNREACHABLE"),
        (from_asyncpg(asyncpg.InvalidPasswordError("s3cr3t")), "UNREACHABLE"),
        (from_asyncpg(asyncpg.InvalidCatalogNameError("s3cr3t")), "UNREACHABLE"),
        (from_asyncpg(asyncpg.UniqueViolationError("s3cr3t")), "OTHER"),
        (from_asyncpg(asyncpg.InterfaceError("connection is closed")), "UNREACHABLE"),
        (asyncpg.InterfaceError("connection is closed"), "UNREACHABLE"),
        (from_asyncpg(asyncpg.DataError("invalid input: 's3cr3t'")), "OTHER"),
        (asyncpg.DeadlockDetectedError("s3cr3t"), "LOCKED"),
        (exc.TimeoutError("s3cr3t"), "POOL_TIMEOUT"),
        (TimeoutError("s3cr3t"), "TIMEOUT"),
        (ConnectionRefusedError("s3cr3t"), "UNREACHABLE"),
        (ConnectionResetError("s3cr3t"), "UNREACHABLE"),
        (UnicodeEncodeError("utf-8", "s3cr3t", 0, 1, "surrogates"), "OTHER"),
        (OverflowError("s3cr3t"), "OTHER"),
        (exc.PendingRollbackError("s3cr3t"), "OTHER"),
        (from_sqlite(sqlite3.SQLITE_BUSY), "LOCKED"),
        (from_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), "LOCKED"),
        (from_sqlite(sqlite3.SQLITE_READONLY_DBMOVED), "READ_ONLY"),
        (from_sqlite(sqlite3.SQLITE_FULL), "FULL"),
        (from_sqlite(sqlite3.SQLITE_CANTOPEN), "UNREACHABLE"),
        (from_sqlite(sqlite3.SQLITE_CORRUPT), "OTHER"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_error_has_a_cause_and_says_nothing_else(error: Exception, cause: str) -> None:
    failure = unavailable(error)
    assert failure.cause == cause
    assert "s3cr3t" not in f"{failure!r} {failure} {failure.__cause__!r} {failure.metadata}"


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (asyncpg.DeadlockDetectedError("x"), True),
        (asyncpg.SerializationError("x"), True),
        (asyncpg.InvalidCachedStatementError("x"), True),
        (asyncpg.LockNotAvailableError("x"), False),
        (asyncpg.UniqueViolationError("x"), False),
    ],
)
def test_only_victims_of_others_try_again(error: Exception, again: bool) -> None:
    assert diagnose(from_asyncpg(error)).transient is again


@pytest.mark.parametrize(
    ("error", "answered"),
    [
        (from_asyncpg(asyncpg.SerializationError("x")), True),
        (from_asyncpg(asyncpg.DiskFullError("x")), True),
        (from_asyncpg(asyncpg.AdminShutdownError("x")), False),
        (from_asyncpg(asyncpg.ConnectionDoesNotExistError("x")), False),
        (from_sqlite(sqlite3.SQLITE_BUSY), True),
        (from_sqlite(sqlite3.SQLITE_FULL), True),
        (from_sqlite(sqlite3.SQLITE_IOERR_FSYNC), False),
        (TimeoutError(), False),
        (ConnectionResetError(), False),
    ],
)
def test_a_failed_commit_is_known_only_when_the_database_said_so(
    error: Exception, answered: bool
) -> None:
    """A SQLite that could not sync may have written the commit all the same."""
    assert diagnose(error).answered is answered


async def test_errors_that_are_not_of_the_database_pass() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    for error in (KeyError("x"), asyncio.CancelledError(), StorageUnavailable("LOCKED")):
        with pytest.raises(type(error)) as passed:
            await translated(fail(error))
        assert passed.value is error
