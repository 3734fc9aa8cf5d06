"""A private server as a process of its own, for the demo and the benchmarks.

A process and not a server in this one: a demo has to kill it, and a benchmark must not measure its
own client, which would share the event loop and the interpreter's lock with an in-process server.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType

START_TIMEOUT_S = 60.0
"""A cold start on a busy machine; a healthy one takes about a second."""
POLL_S = 0.02
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
STOP_TIMEOUT_S = 30.0
"""More than a server gives its calls to finish."""


class ServerDidNotStart(Exception):
    """A private server ended before it answered. The text is what it said last."""


class ServerProcess:
    """A server that runs as a child of this process."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.target = f"127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def kill(self) -> None:
        """End it at once with SIGKILL, as a crash does."""
        await end(self._process, signal.SIGKILL)


@asynccontextmanager
async def server_process(
    folder: Path,
    *,
    database_url: str,
    optimized: bool,
    arguments: tuple[str, ...] = (),
    variables: Mapping[str, str] = NO_VARIABLES,
) -> AsyncIterator[ServerProcess]:
    """Start a server on a free port of loopback, and stop it at the end unless it was killed.

    Args:
        folder: Takes the server's output and port.
        database_url: Goes through the environment, where no list of processes shows it.
        optimized: The value of ENABLE_OPTIMIZED_PERSISTENCE.
        arguments: More options of `statekeep serve`.
        variables: More of its environment.

    Raises:
        ServerDidNotStart: It ended, or took longer than `START_TIMEOUT_S`.
    """
    port_file, log_file = folder / "port", folder / "server.log"
    port_file.unlink(missing_ok=True)
    command = ["serve", "--port", "0", "--port-file", str(port_file), *arguments]
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "statekeep_server",
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(os.environ, database_url=database_url, optimized=optimized)
            | dict(variables),
            start_new_session=True,  # Ctrl-C is ours to handle; the server is stopped by us
        )
    try:
        port = await _wait_for_port(process, port_file, log_file)
        yield ServerProcess(process, port)
    finally:
        await asyncio.shield(end(process))


def _environment(ours: Mapping[str, str], *, database_url: str, optimized: bool) -> dict[str, str]:
    """This process's variables without its own settings, so that a private server has none."""
    kept = {name: value for name, value in ours.items() if not name.startswith("STATEKEEP_")}
    return kept | {
        "STATEKEEP_DATABASE_URL": database_url,
        "ENABLE_OPTIMIZED_PERSISTENCE": "true" if optimized else "false",
        "LOG_LEVEL": "WARNING",
    }


async def _wait_for_port(process: Process, port_file: Path, log_file: Path) -> int:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while (port := _read_port(port_file)) is None:
                if process.returncode is not None:
                    raise ServerDidNotStart(_last_words(log_file))
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise ServerDidNotStart(f"no answer in {START_TIMEOUT_S:.0f} s") from None
    return port


def _read_port(port_file: Path) -> int | None:
    return int(port_file.read_text()) if port_file.exists() else None


def _last_words(log_file: Path) -> str:
    """What the server said last: its own errors and hints, or whatever stands in the last line."""
    lines = log_file.read_text(errors="replace").strip().splitlines() or ["without a word"]
    own = [line.removeprefix("statekeep: ") for line in lines if line.startswith("statekeep: ")]
    return "; ".join(own) or lines[-1]


async def end(process: Process, how: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal and wait; a process that ignores it for too long is killed."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):  # it ended, and nobody has told us yet
        process.send_signal(how)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
