"""The servers of a load run: a PostgreSQL of its own, statekeep on it, and a bare echo."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, make_url

from load.ghz import ROOT
from statekeep_server.bench.server_process import server_process
from statekeep_server.storage.migrate import migrate
from tools.private_postgresql import private_postgresql

ECHO_MODULE = "benchmarks.rivals.front"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
NO_POSTGRESQL = (ImportError, OSError, subprocess.SubprocessError)
"""What `postgresql` raises where none can be started."""


class EchoDidNotStart(Exception):
    """The echo ended before it said its port."""


class Postgresql:
    """A running PostgreSQL with its usual settings: a commit is durable."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """An empty database for the time of the context; yield its address as libpq takes it."""
        name = f"load_{uuid.uuid4().hex}"
        await self.query(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield self._url.set(database=name).render_as_string(hide_password=False)
        finally:
            await self.query(f"DROP DATABASE {name} WITH (FORCE)")

    async def query(self, statement: str, *arguments: Any, dsn: str | None = None) -> list[Any]:
        """Run one statement, in the administrator's database unless another is named."""
        own = self._url.render_as_string(hide_password=False)
        connection = await asyncpg.connect(dsn or own)
        try:
            rows: list[Any] = await connection.fetch(statement, *arguments)
        finally:
            await connection.close()
        return rows


@contextmanager
def postgresql() -> Iterator[Postgresql]:
    """Start a PostgreSQL, or raise one of `NO_POSTGRESQL`."""
    with private_postgresql() as server:
        yield Postgresql(make_url(server.get_uri()))


@asynccontextmanager
async def statekeep_server(folder: Path, *, dsn: str) -> AsyncIterator[str]:
    """Serve an empty database on the optimized path, all else at its default; yield the target.

    Raises ServerDidNotStart.
    """
    url = make_url(dsn).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    await migrate(url)
    async with server_process(folder, database_url=url, optimized=True) as server:
        yield server.target


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Start the bare grpc.aio server that sends a message back; yield its target.

    Raises EchoDidNotStart.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", ECHO_MODULE, "echo"),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    try:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError:
            raise EchoDidNotStart(f"no port in {START_TIMEOUT_S:.0f} s") from None
        if not line:
            raise EchoDidNotStart("it ended without a port")
        yield f"127.0.0.1:{int(line)}"
    finally:
        await asyncio.shield(end(process))


async def end(process: asyncio.subprocess.Process) -> None:
    """Ask a process to stop, and kill it if it takes too long."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
