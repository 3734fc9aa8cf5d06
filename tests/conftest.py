"""The databases of tests: SQLite files, and fresh databases of a real PostgreSQL.

Also how hypothesis works here: a test says what is true, never how long it takes.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import Postgresql, postgresql_for_session

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """The PostgreSQL of this test process."""
    with postgresql_for_session() as server:
        yield server


@pytest.fixture
async def postgresql_url(postgresql: Postgresql) -> AsyncIterator[str]:
    """A fresh database with our schema."""
    async with postgresql.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that is not there yet; it migrates itself."""
    return f"sqlite+aiosqlite:///{tmp_path}/statekeep.db"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of either kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def empty_url(postgresql: Postgresql) -> AsyncIterator[str]:
    """The URL of a PostgreSQL database without our schema."""
    async with postgresql.database(migrated=False) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("empty", marks=pytest.mark.postgresql)])
def new_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database of either kind without our schema."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
