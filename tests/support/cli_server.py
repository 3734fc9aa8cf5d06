"""`statekeep serve` as its users start it: a process with a port file and a log."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.server_process import START_TIMEOUT_S


class CliServer:
    """A running server; its log is a file."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.port_file = folder / "port"
        self.log_file = folder / "log"
        self.said = b""

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port_file.read_text()}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    async def logged(self, words: str) -> None:
        """Wait until the log says something."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while words not in self.log:
                await asyncio.sleep(0.01)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        out, _ = await self.process.communicate()
        self.said += out
        assert self.process.returncode is not None
        return self.process.returncode


async def start(
    folder: Path,
    *arguments: str,
    database_url: str,
    stderr: int | None = None,
    **variables: str,
) -> CliServer:
    """Start a server, without waiting for it; its log goes to a file, or to `stderr`."""
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "statekeep_server",
            "serve",
            "--port-file",
            str(folder / "port"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log if stderr is None else stderr,
            env={**os.environ, "STATEKEEP_DATABASE_URL": database_url, **variables},
        )
    return CliServer(process, folder)


@asynccontextmanager
async def cli_server(
    folder: Path, *arguments: str, database_url: str, **variables: str
) -> AsyncIterator[CliServer]:
    """Start a server on a free port, wait until it serves, and kill it at the end."""
    server = await start(
        folder, "--port", "0", *arguments, database_url=database_url, stderr=None, **variables
    )
    assert server.process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            server.said = await server.process.stdout.readline()
        assert server.said, server.log
        yield server
    finally:
        await server.end(signal.SIGKILL)
