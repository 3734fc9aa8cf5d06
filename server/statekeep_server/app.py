"""The composition root: settings become a running server.

Everything that lives is opened here, once, inside one another, and closed the other way round: the
server stops taking calls and lets those under way finish, then writes without a caller end, then
the pools close, then the last telemetry is sent.
"""

import asyncio
import gc
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from statekeep_server import __version__
from statekeep_server.config import Settings, Worker
from statekeep_server.flags import Flags
from statekeep_server.paths import open_facade, open_flags
from statekeep_server.service.clock import SystemClock
from statekeep_server.service.ids import new_id
from statekeep_server.service.ports import Clock
from statekeep_server.telemetry.environment import read_wanted
from statekeep_server.telemetry.scrape import CannotListen
from statekeep_server.telemetry.setup import Telemetry, open_telemetry
from statekeep_server.transport.listen import CannotServe
from statekeep_server.transport.server import RunningServer, serve

logger = logging.getLogger("statekeep.app")


@asynccontextmanager
async def open_server(
    settings: Settings, *, worker: Worker | None = None
) -> AsyncIterator[RunningServer]:
    """Serve while the context is open; `settings.port` 0 lets the system choose one.

    `worker` says which of several processes of one server this is.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        stack.callback(loop.set_exception_handler, loop.get_exception_handler())
        loop.set_exception_handler(_tell_of_lost_error)
        telemetry = await stack.enter_async_context(_open_telemetry(settings, clock, worker))
        flags = await stack.enter_async_context(open_flags(settings))
        facade = await stack.enter_async_context(
            open_facade(
                settings,
                flags=flags,
                clock=clock,
                new_id=new_id,
                worker=worker,
                telemetry=telemetry,
            )
        )
        stack.enter_context(telemetry.following(facade.readings))
        running = await stack.enter_async_context(
            serve(facade, settings, flags=flags, worker=worker, calls=telemetry.calls)
        )
        flags.watch(_set_log_level)
        flags.watch_changes(facade.flag_changed)
        _announce(settings, running)
        yield replace(running, metrics_port=telemetry.scrape_port)
        logger.info("Stopping: calls under way may finish")


@asynccontextmanager
async def _open_telemetry(
    settings: Settings, clock: Clock, worker: Worker | None
) -> AsyncIterator[Telemetry]:
    """Tell of this process what its environment asks for."""
    index = None if worker is None else worker.index
    wanted = read_wanted(
        os.environ,
        version=__version__,
        instance_id=new_id(),
        metrics_port=settings.metrics_port,
        worker=index,
    )
    opening = open_telemetry(
        wanted,
        version=__version__,
        worker=index,
        now_us=clock.now_us,
        monotonic_s=clock.monotonic_s,
    )
    async with AsyncExitStack() as stack:
        try:
            telemetry = await stack.enter_async_context(opening)
        except CannotListen as error:
            raise CannotServe(str(error)) from None
        yield telemetry


async def run_server(
    settings: Settings,
    *,
    on_ready: Callable[[RunningServer], None] | None = None,
    on_stopping: Callable[[bool], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the drain at once.

    `on_stopping` is told of each signal, with True from the second on.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    serving = asyncio.current_task()

    def on_signal() -> None:
        if on_stopping is not None:
            on_stopping(stop.is_set())
        if stop.is_set() and serving is not None:
            serving.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        async with open_server(settings) as running:
            calm_the_collector()
            if on_ready is not None:
                on_ready(running)
            await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    logger.info("Stopped")


def calm_the_collector() -> None:
    """Let the garbage collector pass over what lives as long as the server.

    Messages and futures go by reference counting, so full collections find next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _set_log_level(flags: Flags) -> None:
    """Log as much as LOG_LEVEL says; unset it is again what the process was started with.

    Only our own lines: at DEBUG some drivers would log states.
    """
    logging.getLogger("statekeep").setLevel(flags.log_level or logging.NOTSET)


def _tell_of_lost_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that no task and no caller took.

    The loop's own way shows what was under way, a callback with its arguments for example: that may
    be a state.
    """
    del loop
    message = re.split(r"[(<]", str(context.get("message")))[0].strip()
    logger.error("Nobody took an error: %s", message, exc_info=context.get("exception"))


def _announce(settings: Settings, running: RunningServer) -> None:
    # The scheme alone: the rest of the URL may hold a password.
    database = settings.database_url.partition(":")[0]
    logger.info("Serving host=%s port=%d database=%s", settings.host, running.port, database)
