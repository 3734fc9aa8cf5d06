"""Programs that run beside this one on loopback, and end with it."""

import asyncio
import http.client
import json
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from statekeep_server.bench.server_process import end

Seen = TypeVar("Seen")

HOST = "127.0.0.1"
POLL_S = 0.1


class Failed(Exception):
    """A program ended before its time, or something did not happen in time."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def running(
    *command: str | Path, log: Path, variables: Mapping[str, str]
) -> AsyncIterator[Process]:
    """Start a program whose output goes to a file, and stop it at the end of the context.

    Raises:
        Failed: There is no such program.
    """
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(variables),
                start_new_session=True,  # Ctrl-C is ours to handle; the program is stopped by us
            )
        except OSError as error:
            raise Failed(f"{command[0]} cannot be started: {error.strerror}") from None
    try:
        yield process
    finally:
        await asyncio.shield(end(process))


async def until(
    what: str,
    look: Callable[[], Awaitable[Seen | None]],
    *,
    within_s: float,
    process: Process | None = None,
    log: Path | None = None,
) -> Seen:
    """Look again and again until something is seen, and return it.

    Raises:
        Failed: It was not seen in time, or the process that should show it ended.
    """
    try:
        async with asyncio.timeout(within_s):
            while (seen := await look()) is None:
                if process is not None and process.returncode is not None:
                    raise Failed(f"{what}: it ended. {last_line(log)}")
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Failed(f"{what}: not within {within_s:.0f} s. {last_line(log)}") from None
    return seen


async def together(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do several things at once, and return what they return. The first that fails ends them all.

    Raises:
        Failed: What the first of them raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def get_json(port: int, path: str) -> Any | None:
    """Ask a program on loopback; None while it does not answer, or answers anything but 200."""
    return await asyncio.to_thread(_get_json, port, path)


def _get_json(port: int, path: str) -> Any | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return json.loads(body) if response.status == http.client.OK else None


def last_line(log: Path | None) -> str:
    """The last line that says anything."""
    lines = log.read_text(errors="replace").split("\n") if log and log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "")
