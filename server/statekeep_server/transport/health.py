"""grpc.health.v1: whether a service is ready, by Check, List and Watch.

The states are set by a poll of the database and, for good, by the drain. Own code rather than
grpcio-health-checking's servicer, whose watches never end: each would hold the drain for its whole
time. Health is open to everybody, so what it costs is bounded.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from statekeep_server.domain.errors import StateError

OVERALL = ""
"""The name under which a probe asks for the server as a whole."""
MAX_WATCHES = 256
"""Open streams; more than all balancers and proxies of one server together."""
IN_A_ROW = 2
"""Answers that change what is said: with more of them it would not be told within two seconds."""

_LOG = logging.getLogger("statekeep.transport.health")

SERVING: int = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Context = grpc.aio.ServicerContext[Any, Any]
Check = Callable[[], Awaitable[None]]


class HealthServicer:
    """Answers with the states of the services.

    Args:
        services: Their names; all start as NOT_SERVING.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._states: dict[str, int] = dict.fromkeys(services, NOT_SERVING)
        self._changed = asyncio.Event()  # the next change; each has its own
        self._draining = False
        self._watches = 0

    def set(self, ready: bool, *services: str) -> bool:
        """Set the state of services and say whether that changed any.

        During the drain nothing becomes ready again.
        """
        state = SERVING if ready and not self._draining else NOT_SERVING
        changed = any(self._states.get(service) != state for service in services)
        self._states |= dict.fromkeys(services, state)
        self._changed.set()
        self._changed = asyncio.Event()
        return changed

    def drain(self) -> None:
        """Say NOT_SERVING for everything and for good, and end every watch after it said so."""
        self._draining = True
        self.set(False, *self._states)

    async def Check(  # noqa: N802 - named by the contract
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Answer the state of one service."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=state)

    async def List(  # noqa: N802 - named by the contract
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        """Answer the states of all services."""
        del request, context
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=state)
                for name, state in self._states.items()
            }
        )

    async def Watch(  # noqa: N802 - named by the contract
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Send the state of one service now and whenever it changes."""
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches")
        self._watches += 1
        try:
            await self._send_changes(request.service, context)
        finally:
            self._watches -= 1

    async def _send_changes(self, service: str, context: Context) -> None:
        sent: int | None = None
        while True:
            # Read before the state: a change while this one is written is then not missed.
            changed, draining = self._changed, self._draining
            state = self._states.get(service, SERVICE_UNKNOWN)
            if state != sent:
                await context.write(health_pb2.HealthCheckResponse(status=state))
                sent = state
            if draining:
                return
            await changed.wait()


@asynccontextmanager
async def polled(
    health: HealthServicer, check: Check, *services: str, interval_s: float
) -> AsyncIterator[None]:
    """Keep the state of services equal to what `check` says.

    `check` raises when they are not ready, and has an interval to answer. It is asked once before
    this enters, and that answer holds. From then on it takes IN_A_ROW answers against what is said
    to change it: one slow answer under load takes no server out of service, and one that comes
    through by luck brings none back. What is said is thus never older than four intervals.
    """
    ready = _tell(health, services, await _ask(check, interval_s))
    task = asyncio.create_task(_poll(health, check, services, interval_s, ready))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # the poll ends by itself only through a bug: raise it


async def _poll(
    health: HealthServicer,
    check: Check,
    services: tuple[str, ...],
    interval_s: float,
    ready: bool,
) -> None:
    against = 0
    try:
        while True:
            await asyncio.sleep(interval_s)
            problem = await _ask(check, interval_s)
            against = against + 1 if (problem is None) != ready else 0
            if against == IN_A_ROW:
                against = 0
                ready = _tell(health, services, problem)
    finally:
        # Whatever ends the poll, a bug in `check` too: nobody knows any more, so not ready.
        _tell(health, services, "the poll ended")


async def _ask(check: Check, timeout_s: float) -> str | None:
    """Return what is wrong, or None."""
    try:
        async with asyncio.timeout(timeout_s):
            await check()
    except StateError as error:
        return error.reason
    except TimeoutError:
        return "TIMEOUT"
    return None


def _tell(health: HealthServicer, services: tuple[str, ...], problem: str | None) -> bool:
    """Set the states, log a change, and say whether they are ready now."""
    ready = problem is None
    if health.set(ready, *services):
        if ready:
            _LOG.info("ready")
        else:
            _LOG.warning("not ready: %s", problem)
    return ready
