"""Every test over the wire runs on both paths, over real databases."""

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
async def wire(path: Path, database_url: str) -> AsyncIterator[Wire]:
    """A server as `statekeep serve` starts it, with the defaults.

    On both databases; a module whose requests hardly reach one takes SQLite alone, by a fixture
    `database_url` of its own.
    """
    async with open_wire(path, database_url) as opened:
        yield opened
