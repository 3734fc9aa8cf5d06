"""Servers whose output nobody reads, or nobody can write: saves go on, and the end comes."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from statekeep import AsyncClient, Save, SaveOutcome, ServerStats
from tests.support.cli_server import CliServer, start
from tests.support.server_process import START_TIMEOUT_S

OPTIMIZED = {"ENABLE_OPTIMIZED_PERSISTENCE": "true", "LOG_LEVEL": "DEBUG"}
BATCHES, ITEMS = 12, 250


@asynccontextmanager
async def served(server: CliServer) -> AsyncIterator[CliServer]:
    """Wait for a server that says nothing, and end it."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not server.port_file.exists():
                assert server.process.returncode is None, server.log
                await asyncio.sleep(0.02)
        yield server
    finally:
        await server.end(signal.SIGKILL)


async def save_a_lot(target: str) -> ServerStats:
    """Save more than a pipe and two queues hold lines for."""
    async with AsyncClient(target) as client:
        for step in range(BATCHES):
            saves = [
                Save(f"run-{number:03}-with-a-name-that-takes-its-room", {"step": step // 2})
                for number in range(ITEMS)
            ]
            for answer in await client.save_many(saves, timeout_s=60):
                assert not isinstance(answer, Exception)
        alone = await client.save("alone", {"step": 1}, checkpoint_type="AUTO", timeout_s=60)
        assert alone.outcome is SaveOutcome.PERSISTED
        return await client.stats()


@pytest.fixture
def deaf() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    yield writer
    os.close(writer)
    os.close(reader)


async def test_saves_go_on_while_the_log_hangs(tmp_path: Path, sqlite_url: str, deaf: int) -> None:
    server = await start(tmp_path, "--port", "0", database_url=sqlite_url, stderr=deaf, **OPTIMIZED)
    async with served(server):
        counted = await save_a_lot(server.target)
        assert sum(path.saves for path in counted.paths) == BATCHES * ITEMS + 1
        assert counted.monitoring.dropped > 0
        assert counted.monitoring.depth == 1_000
        assert await server.end() == 0


async def test_saves_go_on_while_the_log_has_no_room(tmp_path: Path, sqlite_url: str) -> None:
    with Path("/dev/full").open("wb") as full:
        server = await start(
            tmp_path,
            "--port",
            "0",
            database_url=sqlite_url,
            stderr=full.fileno(),
            **OPTIMIZED,
        )
    async with served(server):
        counted = await save_a_lot(server.target)
        assert counted.monitoring.written == 0
        assert counted.monitoring.dropped > 0
        assert counted.log.dropped > 0
        assert await server.end() == 0


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", ">/dev/full", "| true"])
async def test_a_server_serves_without_anybody_to_tell(
    tmp_path: Path, sqlite_url: str, streams: str
) -> None:
    """Neither a closed output nor what cannot take a line keeps a server from serving."""
    port_file = tmp_path / "port"
    command = f'exec "$0" -m statekeep_server serve --port 0 --port-file "$1" {streams}'
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command, sys.executable, port_file),
            stderr=log,
            start_new_session=True,
            env={**os.environ, "STATEKEEP_DATABASE_URL": sqlite_url, **OPTIMIZED},
        )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not port_file.exists():
                assert process.returncode is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.02)
        async with AsyncClient(f"127.0.0.1:{port_file.read_text()}") as client:
            assert (await client.save("run", {"step": 1})).version == 1
            assert json.loads((await client.load("run")).data) == {"step": 1}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        code = await process.wait()
    assert code in {0, -signal.SIGTERM}
    # What was closed must not be the number of the database, which then gets lines in its middle.
    with contextlib.closing(sqlite3.connect(tmp_path / "statekeep.db")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert database.execute("select version from heads").fetchall() == [(1,)]
