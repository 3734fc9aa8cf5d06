"""Database TLS through the URL, seen from a server that speaks the first words of PostgreSQL."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from statekeep_server.domain.errors import StorageUnavailable
from tests.support.stores import a_store
from tests.support.tls import CERTIFICATE, KEY

STRANGER = """\
-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUHnQIdnoKGlm1R8qHP1Di03Kgt+wwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNc29tZWJvZHkgZWxzZTAgFw0yNjExMjIwMDQ3MDNaGA8yMTI2
MTAyOTAwNDcwM1owGDEWMBQGA1UEAwwNc29tZWJvZHkgZWxzZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABKy9oUSVGbOmvSnH/TEgLBmZddpvUKUK6PClT0JC3+ci
jlzvr1wBsHdqKglq84/bO/vdyXx9XAMO/tKu3KZk5z2jUzBRMB0GA1UdDgQWBBQy
F9BtofFTA6dqQ/QueDcv4cSLCzAfBgNVHSMEGDAWgBQyF9BtofFTA6dqQ/QueDcv
4cSLCzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIDfJq5w4PrnZ
Wh3O8nt07dw12d9gNOARMx2vIV1p5N48AiEA6PaZLeyJLTE5Lwn96u7Bl6SA5GO1
QJXJY2umMAFEZVM=
-----END CERTIFICATE-----
"""
"""An authority that signed nothing."""

SSL_REQUEST = (80877103).to_bytes(4, "big")
PROTOCOL_3 = (3 << 16).to_bytes(4, "big")


@dataclass
class Listener:
    """What a server heard: `plain` and `encrypted` count attempts to log in."""

    port: int = 0
    plain: int = 0
    encrypted: int = 0
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def authorities(tmp_path: Path) -> Path:
    path = tmp_path / "root.crt"
    path.write_text(CERTIFICATE)
    return path


@pytest.fixture
async def listener(tmp_path: Path, authorities: Path) -> AsyncIterator[Listener]:
    """A server that offers TLS, hears who wants to log in, and hangs up."""
    key = tmp_path / "server.key"
    key.write_text(KEY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authorities, key)
    heard = Listener()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(8)
            if first[4:] == SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(context)
                first = await reader.readexactly(8)
                heard.encrypted += first[4:] == PROTOCOL_3
            else:
                heard.plain += first[4:] == PROTOCOL_3
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            heard.errors.append(type(error).__name__)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    async with server:
        yield heard


async def connect(listener: Listener, options: str) -> None:
    """Try to open a store there; it never works, for the server hangs up."""
    url = f"postgresql://user:password@localhost:{listener.port}/db?{options}"
    with pytest.raises(StorageUnavailable):
        async with a_store(url, statement_timeout_s=5.0):
            pass


@pytest.mark.parametrize("name", ["ssl", "sslmode"])
@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_a_server_that_can_be_verified_is_told_who_we_are(
    listener: Listener, authorities: Path, name: str, mode: str
) -> None:
    await connect(listener, f"{name}={mode}&sslrootcert={authorities}")
    assert listener.encrypted > 0
    assert listener.plain == 0


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_a_server_that_cannot_be_verified_hears_nothing(
    listener: Listener, tmp_path: Path, mode: str
) -> None:
    strangers = tmp_path / "strangers.crt"
    strangers.write_text(STRANGER)
    await connect(listener, f"sslmode={mode}&sslrootcert={strangers}")
    while not listener.errors:
        await asyncio.sleep(0.005)
    assert (listener.encrypted, listener.plain) == (0, 0)


async def test_required_tls_is_used_without_verification(listener: Listener) -> None:
    await connect(listener, "sslmode=require")
    assert listener.encrypted > 0
    assert listener.plain == 0


async def test_disabled_tls_is_not_used(listener: Listener) -> None:
    await connect(listener, "ssl=disable")
    assert listener.encrypted == 0
    assert listener.plain > 0
