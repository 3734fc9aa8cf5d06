"""What a driver says never gets out: not in our errors, not in their tracebacks, not in the log."""

import logging
import sqlite3
import traceback
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import Newest, RunKey
from statekeep_server.storage.rows import snapshot_row
from statekeep_server.storage.tables import snapshots
from statekeep_server.storage.translate import DriverError
from tests.support.stores import a_store, an_append, new_key

SECRET = "s3cr3t"
STATE = b'{"token": "s3cr3t"}'


def everything_said(error: BaseException) -> str:
    """What a log would print of an error, and what a careless one would."""
    said = [*traceback.format_exception(error), repr(error), str(error)]
    seen: BaseException | None = error
    while seen is not None:
        said += [repr(seen), str(seen), repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(said)


@pytest.fixture
async def below(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


async def test_a_violated_constraint_does_not_quote_the_row(
    database_url: str, below: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL names the row in the DETAIL of its error."""
    caplog.set_level(logging.DEBUG)
    key = RunKey("tenant", f"{SECRET}-{new_key().run_id}")
    async with a_store(database_url) as store:
        await store.append_many([an_append(key, STATE)])
        taken = (await store.load(key, Newest())).snapshot
        async with below.begin() as connection:
            row = {**snapshot_row(taken), "version": 2, "snapshot_id": "other"}
            await connection.execute(insert(snapshots), [row])
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_many([an_append(key, STATE, rules=None)])
    assert failed.value.cause == "OTHER"
    assert SECRET not in everything_said(failed.value)
    assert SECRET not in caplog.text
    cause = failed.value.__cause__
    assert isinstance(cause, DriverError)
    assert str(cause) in {
        "UniqueViolationError 23505",
        "IntegrityError SQLITE_CONSTRAINT_PRIMARYKEY",
    }
    assert failed.value.__context__ is cause.__context__ is None
    # Where it happened is told.
    assert "appending.py" in everything_said(failed.value)


async def test_a_value_that_a_driver_refuses_is_not_quoted(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver of PostgreSQL shows arguments that do not fit."""
    caplog.set_level(logging.DEBUG)
    async with a_store(database_url) as store:
        append = an_append(new_key(), STATE, agent_phase=SECRET)
        # Validation refuses it: this is about a hole in that.
        object.__setattr__(append.save.command, "agent_phase", f"{SECRET}\ud800")
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_many([append])
        await store.append_many([an_append(new_key())])
    assert failed.value.cause == "OTHER"
    assert SECRET not in everything_said(failed.value)
    assert SECRET not in caplog.text


async def test_a_session_of_a_caller_is_told_as_little(
    database_url: str, below: AsyncEngine
) -> None:
    key = RunKey("tenant", f"{SECRET}-{new_key().run_id}")
    async with a_store(database_url) as store:
        await store.append_many([an_append(key, STATE)])
        taken = (await store.load(key, Newest())).snapshot
        async with below.connect() as connection:
            row = {**snapshot_row(taken), "version": 2, "snapshot_id": "other"}
            await connection.execute(insert(snapshots), [row])
            with pytest.raises(StorageUnavailable) as failed:
                await store.append_in_session(connection, an_append(key, STATE, rules=None))
    assert failed.value.cause == "OTHER"
    assert SECRET not in everything_said(failed.value)
    assert failed.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:{SECRET}@no-such-host.invalid/db",
        f"postgresql:///db?host=/no/such/folder&password={SECRET}",
        "sqlite:////dev/null/statekeep.db",
    ],
)
async def test_a_database_that_cannot_be_reached(url: str) -> None:
    with pytest.raises(StorageUnavailable) as failed:
        async with a_store(url, statement_timeout_s=2.0):
            pass
    assert failed.value.cause == "UNREACHABLE"
    assert SECRET not in everything_said(failed.value)


@pytest.mark.postgresql
async def test_a_refused_role_and_a_missing_database(postgresql_url: str) -> None:
    url = make_url(postgresql_url)
    for changed in (url.set(username="nobody", password=SECRET), url.set(database="missing")):
        wrong = changed.render_as_string(hide_password=False)
        with pytest.raises(StorageUnavailable) as failed:
            async with a_store(wrong):
                pass
        assert failed.value.cause == "UNREACHABLE"
        assert SECRET not in everything_said(failed.value)


def test_sqlite_errors_carry_their_codes() -> None:
    """What the translation reads is there in every supported Python."""
    with pytest.raises(sqlite3.OperationalError) as failed:
        sqlite3.connect(":memory:").execute("SELECT 1 FROM missing")
    assert failed.value.sqlite_errorname == "SQLITE_ERROR"
