"""Every test over the wire runs on both paths, over real databases."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from statekeep_server.domain.model import Path
from statekeep_server.transport import server
from tests.support.wire import Wire, open_wire


@pytest.fixture(autouse=True)
def nobody_saves_while_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the hundreds of servers of these tests from waiting for silence."""
    monkeypatch.setattr(server, "SILENCE_S", 0.001)


@pytest.fixture(params=list(Path), ids=str.lower, scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    """The path that serves."""
    chosen: Path = request.param
    return chosen


@pytest.fixture
async def wire(path: Path, database_url: str) -> AsyncIterator[Wire]:
    """A server as `statekeep serve` starts it, with the defaults, on both databases."""
    async with open_wire(path, database_url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_wire(path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    """A server for a whole module, whose requests hardly reach the database: on SQLite alone."""
    folder = tmp_path_factory.mktemp("shared")
    async with open_wire(path, f"sqlite+aiosqlite:///{folder}/statekeep.db") as opened:
        yield opened
