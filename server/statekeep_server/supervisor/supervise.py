"""The supervisor: starts the workers, starts again those that crash, and stops them together."""

import asyncio
import logging
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from statekeep_server.config import Settings, Worker
from statekeep_server.supervisor.order import Order
from statekeep_server.supervisor.port import CannotSupervise, check_system, held_port
from statekeep_server.supervisor.process import Ended, Orders, live
from statekeep_server.telemetry.process_log import LogFormat

logger = logging.getLogger("statekeep.supervisor")

MAX_WORKERS = 64
"""Each wants a core and pools of its own; no machine that we know of serves better with more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The rests before a worker is started again: each twice the last one, up to the longest.

    Attributes:
        calm_s: A worker that served for so long is forgiven what came before.
    """

    first_s: float = 0.2
    longest_s: float = 30.0
    calm_s: float = 60.0


class Stopped(Enum):
    """How the workers ended when they were told to.

    Attributes:
        DRAINED: All closed what they had opened.
        LATE: One could not, and left behind what hung.
        FORCED: A second signal killed them.
    """

    DRAINED = auto()
    LATE = auto()
    FORCED = auto()


class WorkersFailed(Exception):
    """The workers could not be started; none runs any more.

    Attributes:
        ended: What the first of them said that failed.
    """

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.error)
        self.ended = ended


def check_workers(settings: Settings) -> None:
    """Refuse settings that several workers cannot serve.

    Raises CannotSupervise.
    """
    if settings.workers == 1:
        return
    check_system()
    if settings.database_url.startswith("sqlite"):
        raise CannotSupervise(
            "several workers need PostgreSQL: a SQLite file has one writer at a time, so more "
            "processes would only wait for each other's locks"
        )


async def run_workers(
    settings: Settings,
    *,
    command: Sequence[str],
    log_level: str,
    log_format: LogFormat,
    on_ready: Callable[[int], None],
    backoff: Backoff | None = None,
) -> Stopped:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT, then drain them all.

    Args:
        settings: Of each worker, but for the port, which is held here.
        command: Starts a worker, which is sent its order (see `process`).
        log_level: Of the workers.
        log_format: Likewise.
        on_ready: Called once, with the port, when all workers serve for the first time.
        backoff: How long a worker that crashed rests.

    Raises:
        CannotSupervise: The settings cannot be served, or the port is taken.
        WorkersFailed: A worker could not serve, before all did.
    """
    check_workers(settings)
    orders = Orders(asyncio.Event(), asyncio.Event())

    def on_signal() -> None:
        if orders.stop.is_set():
            orders.force.set()
        orders.stop.set()

    with (
        held_port(settings.host, settings.port) as port,
        tempfile.TemporaryDirectory(prefix="statekeep-") as folder,
    ):
        supervisor = _Supervisor(orders, command, backoff or Backoff(), lambda: on_ready(port))
        bound = replace(settings, port=port)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(settings.workers):
                    worker = Worker(index=index, count=settings.workers, folder=folder)
                    order = Order(bound, worker, log_level, log_format).write()
                    group.create_task(supervisor.keep(worker, order))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
    if supervisor.failure is not None:
        raise WorkersFailed(supervisor.failure)
    if orders.force.is_set():
        return Stopped.FORCED
    return Stopped.LATE if supervisor.late else Stopped.DRAINED


class _Supervisor:
    """Keeps workers alive until it is told to stop."""

    def __init__(
        self,
        orders: Orders,
        command: Sequence[str],
        backoff: Backoff,
        on_all_ready: Callable[[], None],
    ) -> None:
        self.failure: Ended | None = None
        self.late = False
        self._orders = orders
        self._command = command
        self._backoff = backoff
        self._on_all_ready = on_all_ready
        self._ready: set[int] = set()
        self._serving = False

    async def keep(self, worker: Worker, order: bytes) -> None:
        """Run a worker, again and again, until all are to stop."""
        rest_s = self._backoff.first_s
        while not self._orders.stop.is_set():
            ended = await live(
                self._command,
                order,
                self._orders,
                on_ready=lambda: self._is_ready(worker),
            )
            if self._orders.stop.is_set():
                self.late |= ended.served_s is not None and ended.code != 0
                return
            if not self._serving and ended.served_s is None:
                # Nothing that a restart would heal: wrong settings, no database, no schema.
                self.failure = ended
                self._orders.stop.set()
                return
            if (ended.served_s or 0.0) >= self._backoff.calm_s:
                rest_s = self._backoff.first_s
            logger.error(
                "Worker %d is down: %s; it is started again in %.1f s",
                worker.index,
                ended.error,
                rest_s,
            )
            await self._rest(rest_s)
            rest_s = min(2 * rest_s, self._backoff.longest_s)

    def _is_ready(self, worker: Worker) -> None:
        if self._serving:
            logger.info("Worker %d serves again", worker.index)
            return
        self._ready.add(worker.index)
        if len(self._ready) == worker.count:
            self._serving = True
            self._on_all_ready()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._orders.stop.wait()
        except TimeoutError:
            return
