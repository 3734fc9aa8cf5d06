"""`statekeep health`, the probe of containers and units, against real servers."""

import asyncio
from pathlib import Path

from tests.support.cli_server import cli_server
from tests.support.project import BIN
from tests.support.tls import CERTIFICATE, KEY


async def probe(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "statekeep",
        "health",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, (out + err).decode().strip()


async def test_a_server_is_probed_without_its_token(tmp_path: Path, sqlite_url: str) -> None:
    async with cli_server(tmp_path, database_url=sqlite_url, STATEKEEP_TOKEN="secret") as server:
        assert await probe("--target", server.target) == (0, "SERVING")
        for service in ("AgentStateService", "AdminService"):
            said = await probe(f"statekeep.v1.{service}", "--target", server.target)
            assert said == (0, "SERVING")
        code, said_ = await probe("nonsense", "--target", server.target)
        assert code == 2
        assert "no service 'nonsense'" in said_


async def test_a_server_with_tls_is_probed(tmp_path: Path, sqlite_url: str) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    arguments = ("--tls-cert", str(certificate), "--tls-key", str(key))
    async with cli_server(tmp_path, *arguments, database_url=sqlite_url) as server:
        words = ("--target", server.target, "--tls-ca", str(certificate))
        assert await probe(*words) == (0, "SERVING")
        assert (await probe("--target", server.target))[0] == 3


async def test_a_server_that_is_away_is_not_ready() -> None:
    code, said = await probe("--target", "127.0.0.1:1")
    assert code == 3
    assert "no server answers" in said
    assert (await probe("--tls-ca", "/nowhere/ca.pem"))[0] == 2
