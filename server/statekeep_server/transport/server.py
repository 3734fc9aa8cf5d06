"""The gRPC server: its options, what it serves, how it starts and how it stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from statekeep.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_state_service_pb2,
    agent_state_service_pb2_grpc,
)
from statekeep_server.config import Settings, Worker
from statekeep_server.service.facade import StateFacade
from statekeep_server.service.flag_follower import FlagFollower
from statekeep_server.telemetry.calls import Calls
from statekeep_server.transport.admin_servicer import AdminServicer
from statekeep_server.transport.colleagues import telling
from statekeep_server.transport.health import OVERALL, HealthServicer, polled
from statekeep_server.transport.interceptors.adapter import GuardedHandlers
from statekeep_server.transport.interceptors.auth import TokenCheck
from statekeep_server.transport.interceptors.limiter import Limiter
from statekeep_server.transport.listen import bind, check_protection
from statekeep_server.transport.reflection import add_reflection
from statekeep_server.transport.state_servicer import StateServicer

STATE_SERVICE = agent_state_service_pb2.DESCRIPTOR.services_by_name["AgentStateService"].full_name
ADMIN_SERVICE = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

DATABASE = "database"
"""The name under which health tells of the database itself, as of a service."""
NEED_DATABASE = (OVERALL, STATE_SERVICE, DATABASE)

OPEN_ENDED = frozenset({f"/{STATE_SERVICE}/SaveAgentStateStream"})
"""Streams that last as long as their client likes; each save in them has a deadline."""

SILENCE_S = 0.1
"""A busy client sends its next calls sooner; of 20 ms some made use."""
MAX_SILENCE_WAIT_S = 1.0
"""Longer, and clients that are refused would run out of attempts before they hear of the stop."""

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers.

    Attributes:
        port: The port it listens on, also when the settings left the choice to the system.
        metrics_port: Likewise, of the page for Prometheus; None without one.
    """

    port: int
    metrics_port: int | None = None


@asynccontextmanager
async def serve(
    facade: StateFacade,
    settings: Settings,
    *,
    flags: FlagFollower,
    health_interval_s: float = 0.5,
    worker: Worker | None = None,
    calls: Calls | None = None,
) -> AsyncIterator[RunningServer]:
    """Serve until the context ends, then let the calls under way finish.

    Args:
        facade: Answers the calls. It must outlive the server.
        settings: Where and how to serve.
        flags: What operators see and change.
        health_interval_s: How often the database is asked; health is at most four of them old.
        worker: Which of several processes on the port this is; None for the only one.
        calls: Watches the calls; None where nobody asks how they went.

    Raises:
        CannotServe: The settings would open the server by accident, or its address is taken.
    """
    check_protection(settings)
    limiter = Limiter(_max_calls(settings))
    draining = asyncio.Event()
    handlers = GuardedHandlers(
        limiter,
        TokenCheck(settings.token),
        trust_tenant=settings.trust_tenant_metadata,
        default_deadline_s=settings.default_deadline_s,
        open_ended=OPEN_ENDED,
        calls=calls,
        draining=draining,
    )
    health = HealthServicer((OVERALL, STATE_SERVICE, ADMIN_SERVICE, DATABASE))
    admin = AdminServicer(facade, settings, flags, worker)
    state = StateServicer(facade, settings.limits, limiter, draining)
    # The stubs want a whole server; its two ways to register are enough.
    registry: Any = handlers
    health_pb2_grpc.add_HealthServicer_to_server(health, registry)
    agent_state_service_pb2_grpc.add_AgentStateServiceServicer_to_server(state, registry)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, registry)
    add_reflection(registry, (STATE_SERVICE, ADMIN_SERVICE, HEALTH_SERVICE))
    server = grpc.aio.server(handlers=(handlers,), options=_options(settings, worker))
    port = bind(server, settings)
    # Admin answers without a database: that is when an operator needs it.
    health.set(True, ADMIN_SERVICE)
    async with (
        telling(worker, admin.own_stats),
        polled(health, facade.check, *NEED_DATABASE, interval_s=health_interval_s),
    ):
        await server.start()
        try:
            yield RunningServer(port)
        finally:
            draining.set()
            await _stop(server, health, limiter, handlers, settings.drain_timeout_s)


async def _stop(
    server: grpc.aio.Server,
    health: HealthServicer,
    limiter: Limiter,
    handlers: GuardedHandlers,
    drain_timeout_s: float,
) -> None:
    """Say NOT_SERVING first, then refuse new calls, then wait for those under way.

    Cancelled while it waits (a second signal), it ends them at once.
    """
    health.drain()
    now_s = asyncio.get_running_loop().time
    end_s = now_s() + drain_timeout_s
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(drain_timeout_s, MAX_SILENCE_WAIT_S)):
                await _silence(limiter, handlers)
        await server.stop(max(0.0, end_s - now_s()))
    except asyncio.CancelledError:
        await server.stop(None)
        raise


async def _silence(limiter: Limiter, handlers: GuardedHandlers) -> None:
    """Wait until no call is under way and none comes: each is refused, and told to come later.

    When gRPC stops, it drops the calls that it has received and not yet handed over, with
    CANCELLED, which no client repeats. Callers send their next when they have the last answer.
    """
    seen = -1
    while limiter.calls or seen != handlers.arrived:
        seen = handlers.arrived
        await asyncio.sleep(SILENCE_S)


def _max_calls(settings: Settings) -> int:
    """All calls together: the facade keeps the limit on saves, and loads need room beside them."""
    return 2 * settings.max_concurrent_saves


def _options(settings: Settings, worker: Worker | None) -> list[tuple[str, int]]:
    """The channel arguments of the server, each with its reason."""
    limit_bytes = settings.limits.max_message_bytes
    # Well beyond the server's own limit, so that what exceeds that gets its answer: a refused call
    # still counts here for a moment, and gRPC resets what exceeds this without a word.
    max_streams = 2 * _max_calls(settings) + 1_000
    return [
        ("grpc.max_receive_message_length", limit_bytes),
        ("grpc.max_send_message_length", limit_bytes),
        # A second server on the same port must fail, not silently share its calls. Workers share
        # it: the supervisor holds the port, so that strangers fail there too.
        ("grpc.so_reuseport", 0 if worker is None else 1),
        ("grpc.max_concurrent_streams", max_streams),
        # What has come and waits for the event loop, of all connections: a few full ones. Beyond
        # 1,000 gRPC would by default end calls by chance, as CANCELLED and without a word; a burst
        # is for the limiter to refuse.
        ("grpc.server.max_pending_requests", 4 * max_streams),
        ("grpc.server.max_pending_requests_hard_limit", 8 * max_streams),
        # A token and trace context fit many times.
        ("grpc.max_metadata_size", 16 * 1024),
        # Notices peers that vanished, and allows clients to do so too.
        ("grpc.keepalive_time_ms", _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        # Connections end now and then, so that a balancer can spread them over new servers.
        ("grpc.max_connection_age_ms", 30 * _MINUTE_MS),
        ("grpc.max_connection_age_grace_ms", _MINUTE_MS),
        # A peer that connects and says nothing.
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]
