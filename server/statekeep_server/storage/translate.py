"""Drivers' errors, turned into errors of ours. The only module that knows their names.

What a driver says is never repeated: PostgreSQL quotes rows in it, and asyncpg the arguments of
statements. The errors raised here have a `DriverError` as their cause, with the traceback of the
driver's error, its class and its code, and nothing else, so that a log may print all of it.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import exc

from statekeep_server.domain.errors import StorageUnavailable

T = TypeVar("T")

UNREACHABLE = "UNREACHABLE"
LOCKED = "LOCKED"
READ_ONLY = "READ_ONLY"
FULL = "FULL"
POOL_TIMEOUT = "POOL_TIMEOUT"
TIMEOUT = "TIMEOUT"
OTHER = "OTHER"

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    exc.SQLAlchemyError,
    OSError,  # a refused connection, or no answer in time, comes out bare
    UnicodeError,
    OverflowError,  # as do values that the driver of SQLite cannot store
)
"""What comes out of SQLAlchemy and the drivers."""

_BY_SQLSTATE = {
    "25006": READ_ONLY,  # read_only_sql_transaction
    "40001": LOCKED,  # serialization_failure
    "40P01": LOCKED,  # deadlock_detected
    "53100": FULL,  # disk_full
    "53300": UNREACHABLE,  # too_many_connections
    "55P03": LOCKED,  # lock_not_available
    "57014": TIMEOUT,  # query_canceled, by statement_timeout
    "57P01": UNREACHABLE,  # admin_shutdown
    "57P02": UNREACHABLE,  # crash_shutdown
    "57P03": UNREACHABLE,  # cannot_connect_now
    "25P03": TIMEOUT,  # idle_in_transaction_session_timeout
    "3D000": UNREACHABLE,  # invalid_catalog_name
}
_BY_SQLSTATE_CLASS = {
    "08": UNREACHABLE,  # connection exceptions
    "28": UNREACHABLE,  # the password or the role is refused
}
_BY_SQLITE_CODE = {
    3: UNREACHABLE,  # SQLITE_PERM
    5: LOCKED,  # SQLITE_BUSY
    6: LOCKED,  # SQLITE_LOCKED
    8: READ_ONLY,  # SQLITE_READONLY
    13: FULL,  # SQLITE_FULL
    14: UNREACHABLE,  # SQLITE_CANTOPEN
}

_AGAIN = frozenset({"40001", "40P01"})
_CLOSED = frozenset({"InterfaceError", "InternalClientError"})
"""The driver's own errors for a connection that is no more; for bad values it has others."""
_STALE_PLAN = "InvalidCachedStatementError"
_NO_TABLE = "42P01"

_SQLITE_ANSWERS = frozenset({5, 6, 8, 13})
"""Busy, locked, read-only, full: nothing was committed. After an I/O error it may have been."""


class DriverError(Exception):
    """A database driver failed; what it said is left out, for it may quote what was stored."""

    def __init__(self, kind: str, code: str) -> None:
        super().__init__(f"{kind} {code}".rstrip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What an error of a driver means.

    Attributes:
        cause: As in `StorageUnavailable`.
        disconnected: The connection is gone.
        transient: The database rolled back for the sake of another transaction, or of a change of
            the schema: do it again.
        answered: The database itself refused, and is still there: nothing was committed.
        no_table: A table is missing.
    """

    kind: str
    code: str
    cause: str
    disconnected: bool
    transient: bool
    answered: bool
    no_table: bool


def diagnose(error: Exception) -> Diagnosis:
    """Say what an error of a driver means."""
    adapted: object = error.orig if isinstance(error, exc.DBAPIError) else error
    # SQLAlchemy's stand-in for an error of asyncpg holds it as its own `orig`.
    driver_error = getattr(adapted, "orig", None) or adapted
    sqlstate = getattr(driver_error, "sqlstate", None) or ""
    sqlite_code = getattr(driver_error, "sqlite_errorcode", None)
    kind = type(driver_error).__name__
    cause = _cause(error, driver_error, sqlstate, sqlite_code)
    return Diagnosis(
        kind=kind,
        code=str(sqlstate or getattr(driver_error, "sqlite_errorname", "")),
        cause=cause,
        disconnected=cause == UNREACHABLE
        or (isinstance(error, exc.DBAPIError) and error.connection_invalidated),
        transient=sqlstate in _AGAIN or kind == _STALE_PLAN,
        answered=(sqlite_code or 0) & 0xFF in _SQLITE_ANSWERS
        or (bool(sqlstate) and cause != UNREACHABLE),
        no_table=sqlstate == _NO_TABLE or "no such table" in str(driver_error),
    )


def _cause(error: Exception, driver_error: object, sqlstate: str, sqlite_code: int | None) -> str:
    if isinstance(error, exc.TimeoutError):
        return POOL_TIMEOUT
    if sqlstate:
        by_class = _BY_SQLSTATE_CLASS.get(sqlstate[:2], OTHER)
        return _BY_SQLSTATE.get(sqlstate, by_class)
    if sqlite_code is not None:
        return _BY_SQLITE_CODE.get(sqlite_code & 0xFF, OTHER)
    # TimeoutError is an OSError.
    if isinstance(driver_error, TimeoutError):
        return TIMEOUT
    if isinstance(driver_error, OSError):
        return UNREACHABLE
    if type(driver_error).__name__ in _CLOSED or getattr(error, "connection_invalidated", False):
        return UNREACHABLE
    return OTHER


def unavailable(error: Exception) -> StorageUnavailable:
    """Make the error of ours for an error of a driver, with a cause that quotes nothing."""
    return with_cause(StorageUnavailable(diagnose(error).cause), error)


F = TypeVar("F", bound=Exception)


def with_cause(failure: F, error: Exception) -> F:
    """Give an error of ours a cause that says what the driver's error was and where."""
    diagnosis = diagnose(error)
    cause = DriverError(diagnosis.kind, diagnosis.code)
    failure.__cause__ = cause.with_traceback(error.__traceback__)
    return failure


async def translated(work: Awaitable[T]) -> T:
    """Await database work; errors of the driver become StorageUnavailable."""
    try:
        return await work
    except DRIVER_ERRORS as error:
        failure = unavailable(error)
    # Raised out here, or the driver's error would be its context.
    raise failure
