"""TLS: whom the client trusts, and what it says when trust fails."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from statekeep import ServerNotFound, Unavailable
from tests.support import tls
from tests.support.both_clients import Kind, connect
from tests.support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_text(tls.CERTIFICATE)
    return path


@pytest.fixture
def secure() -> Iterator[ScriptedServer]:
    pair = (tls.KEY.encode(), tls.CERTIFICATE.encode())
    with scripted_server(grpc.ssl_server_credentials([pair])) as script:
        yield script


async def test_a_named_certificate_is_trusted(secure: ScriptedServer, kind: Kind, ca: Path) -> None:
    async with connect(kind, secure.target, tls=ca, token="secret") as client:
        assert (await client.save("run-1", {})).persisted
    assert secure.asked[0].metadata["authorization"] == "Bearer secret"


async def test_the_environment_names_a_certificate(
    secure: ScriptedServer, kind: Kind, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEKEEP_TLS_CA", str(ca))
    monkeypatch.setenv("STATEKEEP_TARGET", secure.target)
    monkeypatch.setenv("STATEKEEP_TOKEN", "secret")
    async with connect(kind, None) as client:
        await client.load("run-1")
    assert secure.asked[0].metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize("trust", [True, False])
async def test_no_trust_no_call(secure: ScriptedServer, kind: Kind, trust: bool) -> None:
    async with connect(kind, secure.target, tls=trust) as client:
        with pytest.raises(Unavailable, match="do both sides use TLS") as caught:
            await client.load("run-1")
    assert not isinstance(caught.value, ServerNotFound)  # somebody is there
    assert not secure.asked


async def test_a_server_without_tls_is_named(server: ScriptedServer, kind: Kind, ca: Path) -> None:
    async with connect(kind, server.target, tls=ca) as client:
        with pytest.raises(Unavailable, match="do both sides use TLS"):
            await client.load("run-1")
    assert not server.asked
