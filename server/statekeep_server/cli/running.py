"""Running what takes long and starts processes: however it is stopped, it cleans up."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from statekeep_server.cli.connection import failure
from statekeep_server.cli.errors import CommandFailed

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop of its own.

    SIGTERM cancels it as Ctrl-C does, so that the processes that it started end with it.

    Raises:
        CommandFailed: A call to a server failed.
        typer.Exit: It was stopped; 143, as shells expect after SIGTERM.
    """
    # Late: they import gRPC and the event loop, which `--help` does not need.
    import uvloop

    from statekeep import StatekeepError

    stopped = False

    async def stoppable() -> T:
        nonlocal stopped
        task = asyncio.current_task()

        def stop() -> None:
            nonlocal stopped
            stopped = True
            if task is not None:
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await work

    try:
        return uvloop.run(stoppable())
    except StatekeepError as error:
        raise failure(error) from None
    except asyncio.CancelledError:
        raise typer.Exit(143 if stopped else 130) from None
    except TimeoutError as error:
        raise CommandFailed(f"gave up waiting: {error}") from None
