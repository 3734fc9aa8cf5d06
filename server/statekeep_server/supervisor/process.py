"""One life of a worker process, from its start to its end.

The supervisor writes the worker's order to its stdin and keeps that open: when it closes, by will
or because the supervisor is gone, the worker drains and ends. The worker writes one line of JSON
to its stdout: `{"ready": true}`, or `{"error": …, "code": …, "hint": …}` when it cannot serve.
"""

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended.

    Attributes:
        error: For the operator: what the worker said, or how its process ended.
        code: The exit code of a command that ends so; 0 after a drain.
        hint: What helps, if the worker knows.
        served_s: Seconds for which it served; None when it never did.
    """

    error: str
    code: int = 1
    hint: str = ""
    served_s: float | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """What the supervisor wants of its workers.

    Attributes:
        stop: Drain and end.
        force: End at once, whatever is under way. What was acknowledged is durable all the same.
    """

    stop: asyncio.Event
    force: asyncio.Event


async def live(
    command: Sequence[str], order: bytes, orders: Orders, *, on_ready: Callable[[], None]
) -> Ended:
    """Run a worker until it ends, by itself or because `orders` say so."""
    try:
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops its workers.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
    except OSError as error:
        return Ended(f"its process cannot be started: {error.strerror}")
    try:
        async with asyncio.TaskGroup() as group:
            ender = group.create_task(_end(process, order, orders))
            ended = await _follow(process, on_ready)
            ender.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return ended


async def _end(process: Process, order: bytes, orders: Orders) -> None:
    """Give the order, and end the process as it is told to."""
    stdin = cast("asyncio.StreamWriter", process.stdin)  # a pipe was asked for
    with contextlib.suppress(ConnectionError):  # a worker that is gone is seen by its end
        stdin.write(order)
        await stdin.drain()
    await orders.stop.wait()
    stdin.close()
    await orders.force.wait()
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _follow(process: Process, on_ready: Callable[[], None]) -> Ended:
    stdout = cast("asyncio.StreamReader", process.stdout)  # a pipe was asked for
    loop = asyncio.get_running_loop()
    said = await stdout.readline()
    answer = json.loads(said) if said.endswith(b"\n") else {}
    if not answer.get("ready"):
        code = await process.wait()
        if "error" in answer:
            return Ended(answer["error"], answer["code"], answer["hint"])
        return Ended(f"it {_how(code)} before it served")
    on_ready()
    ready_s = loop.time()
    code = await process.wait()
    return Ended(f"it {_how(code)}", int(code != 0), served_s=loop.time() - ready_s)


def _how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
