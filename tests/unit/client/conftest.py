"""A scripted server, and both clients on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from statekeep import AsyncClient
from tests.support.both_clients import KINDS, Kind, connect
from tests.support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATEKEEP_TARGET", "STATEKEEP_TOKEN", "STATEKEEP_TLS_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as script:
        yield script


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
async def client(server: ScriptedServer, kind: Kind) -> AsyncIterator[AsyncClient]:
    async with connect(kind, server.target) as opened:
        yield opened
