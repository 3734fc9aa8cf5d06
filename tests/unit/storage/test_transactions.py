"""What is done again, how often, and what is not."""

import asyncpg
import pytest
from sqlalchemy import exc, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.storage.transactions import MAX_ATTEMPTS, Done, StartOver, Transactions
from tests.support.stores import a_store

DEADLOCK = asyncpg.DeadlockDetectedError("x")
CONSTRAINT = asyncpg.UniqueViolationError("x")


def adapted(error: Exception) -> exc.DBAPIError:
    stand_in = AsyncAdapt_asyncpg_dbapi.Error("x", error)  # type: ignore[no-untyped-call]  # SQLAlchemy's
    return exc.DBAPIError("SELECT", {}, stand_in)


@pytest.mark.parametrize(
    ("error", "attempts", "cause"),
    [
        (StartOver(), MAX_ATTEMPTS, "LOCKED"),
        (adapted(DEADLOCK), MAX_ATTEMPTS, "LOCKED"),
        (adapted(CONSTRAINT), 1, "OTHER"),
        (ConnectionResetError(), 2, "UNREACHABLE"),
        (TimeoutError(), 1, "TIMEOUT"),
    ],
    ids=["start over", "deadlock", "constraint", "disconnected", "timeout"],
)
async def test_work_is_done_again_where_that_may_help(
    sqlite_url: str, error: Exception, attempts: int, cause: str
) -> None:
    seen: list[int] = []

    async def work(_connection: AsyncConnection, attempt: int) -> Done[None]:
        seen.append(attempt)
        raise error

    async with a_store(sqlite_url) as store:
        transactions = Transactions(store._engines)
        with pytest.raises(StorageUnavailable) as failed:
            await transactions.write(work)
    assert failed.value.cause == cause
    assert seen == list(range(1, attempts + 1))
    assert transactions.rows_written == 0


async def test_errors_of_the_work_roll_back_and_come_out(sqlite_url: str) -> None:
    async def work(connection: AsyncConnection, _attempt: int) -> Done[None]:
        await connection.execute(text("CREATE TABLE junk (x integer)"))
        raise KeyError("mine")

    async with a_store(sqlite_url) as store:
        transactions = Transactions(store._engines)
        with pytest.raises(KeyError):
            await transactions.write(work)
        found = "SELECT name FROM sqlite_master WHERE name = 'junk'"
        assert await transactions.read(text(found)) == []


async def test_work_without_rows_is_rolled_back(sqlite_url: str) -> None:
    async def work(connection: AsyncConnection, _attempt: int) -> Done[str]:
        await connection.execute(text("CREATE TABLE junk (x integer)"))
        return Done("answer", 0)

    async with a_store(sqlite_url) as store:
        transactions = Transactions(store._engines)
        assert await transactions.write(work) == "answer"
        found = "SELECT name FROM sqlite_master WHERE name = 'junk'"
        assert await transactions.read(text(found)) == []
