"""Every test over the wire runs on both paths, over a real database."""

import pathlib
from collections.abc import AsyncIterator

import pytest

from statekeep_server.domain.model import Path
from tests.support.wire import Wire, open_wire


@pytest.fixture(params=list(Path), ids=str.lower)
def path(request: pytest.FixtureRequest) -> Path:
    """The path that serves."""
    chosen: Path = request.param
    return chosen


@pytest.fixture
def database_url(tmp_path: pathlib.Path) -> str:
    """A database of the test's own."""
    return f"sqlite+aiosqlite:///{tmp_path / 'states.db'}"


@pytest.fixture
async def wire(path: Path, database_url: str) -> AsyncIterator[Wire]:
    """A server as `statekeep serve` starts it, with the defaults."""
    async with open_wire(path, database_url) as opened:
        yield opened
