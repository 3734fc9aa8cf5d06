"""A real server in a process of its own, to be killed.

`python -m tests.support.server_process URL PATH AGE` serves; `ServerProcess` starts and kills it.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import uvloop

from statekeep_server.app import run_server
from statekeep_server.config import Settings
from statekeep_server.transport.server import RunningServer

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0


class ServerProcess:
    """One server on one database; it may be killed and started again, on another port."""

    def __init__(
        self, database_url: str, *, optimized: bool, write_behind_max_age_s: float = 1.0
    ) -> None:
        path = "optimized" if optimized else "standard"
        self._arguments = [database_url, path, str(write_behind_max_age_s)]
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.kill()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and wait until it says its port."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.server_process",
            *self._arguments,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _path()},
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await self._process.stdout.readline()
        self.port = int(line)

    async def kill(self) -> None:
        """End the server without any warning."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask the server to stop; return its exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        self._process = None
        process.send_signal(number)
        await process.communicate()
        assert process.returncode is not None
        return process.returncode


def _path() -> str:
    """The caller's own path goes first: it may name a faulty copy of the server."""
    return os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))


def main() -> None:
    """Serve until told to stop; print the port when ready."""
    url, path, max_age_s = sys.argv[1:]
    settings = Settings(
        database_url=url,
        port=0,
        enable_optimized_persistence=path == "optimized",
        write_behind_max_age_s=float(max_age_s),
    )

    def tell(running: RunningServer) -> None:
        sys.stdout.write(f"{running.port}\n")
        sys.stdout.flush()

    uvloop.run(run_server(settings, on_ready=tell))


if __name__ == "__main__":
    main()
