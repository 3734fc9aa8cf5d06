"""A real server on loopback, and bare stubs on it: what any client of the contract would see."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc

from statekeep.v1 import (
    admin_service_pb2_grpc,
    agent_state_pb2,
    agent_state_service_pb2,
    agent_state_service_pb2_grpc,
)
from statekeep_server.app import open_server
from statekeep_server.config import Settings
from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import (
    LoadedState,
    Path,
    RunKey,
    SaveCommand,
    SaveResult,
    Selector,
)
from statekeep_server.flags import Flags
from statekeep_server.service.ports import Append
from statekeep_server.transport.server import serve
from tests.support.faults import FaultyStore
from tests.support.world import World, open_world

SAVE = "/statekeep.v1.AgentStateService/SaveAgentState"
LIMIT = 64 * 1024 * 1024

_runs = itertools.count(1)


@dataclass(frozen=True)
class Wire:
    """A server and a channel to it."""

    port: int
    channel: grpc.aio.Channel
    metrics_port: int | None = None

    @property
    def state(self) -> "agent_state_service_pb2_grpc.AgentStateServiceAsyncStub":
        return agent_state_service_pb2_grpc.AgentStateServiceStub(self.channel)

    @property
    def admin(self) -> "admin_service_pb2_grpc.AdminServiceAsyncStub":
        return admin_service_pb2_grpc.AdminServiceStub(self.channel)

    @property
    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self.channel)

    def raw(self, method: str) -> Any:
        """Call a method with bytes."""
        return self.channel.unary_unary(method)

    async def works(self) -> None:
        """Save and load a good state: the server survived whatever came before."""
        run_id = new_run()
        saved = await self.state.SaveAgentState(save_request(run_id=run_id))
        assert saved.outcome == agent_state_pb2.SAVE_OUTCOME_PERSISTED
        loaded = await self.state.LoadAgentState(
            agent_state_service_pb2.LoadAgentStateRequest(run_id=run_id)
        )
        assert loaded.snapshot.snapshot_id == saved.snapshot_id
        assert loaded.state.data == save_request().state.data


@dataclass(frozen=True)
class Refusal:
    """How a call failed. `field` is that of BadRequest, None without one."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    field: str | None
    retry_after_ms: int | None
    pushback_ms: int | None


class GatedStore(FaultyStore):
    """A store whose saves and loads wait at a gate; it notes the saves that came through."""

    def __init__(self, store: FaultyStore) -> None:
        super().__init__(store.store)
        self.gate = asyncio.Event()
        self.waiting = 0
        self.commands: list[SaveCommand] = []

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        await self._pass()
        self.commands += [append.save.command for append in appends]
        return await super().append_many(appends, atomic=atomic)

    async def load(self, key: RunKey, selector: Selector) -> LoadedState:
        await self._pass()
        return await super().load(key, selector)

    async def load_newest(self, keys: Sequence[RunKey]) -> Sequence[LoadedState | StateError]:
        await self._pass()
        return await super().load_newest(keys)

    async def arrived(self, count: int) -> None:
        """Wait until so many wait at the gate."""
        while self.waiting < count:
            await asyncio.sleep(0.001)

    async def _pass(self) -> None:
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1


def gate(world: World) -> GatedStore:
    """Put one closed gate before both paths of a world."""
    store = GatedStore(world.standard)
    world.standard.store = world.optimized.store = store
    return store


def new_run() -> str:
    """Name a run that no test has used."""
    return f"run-{next(_runs)}"


def save_request(
    state: object = None, *, content_type: str = "", **options: Any
) -> agent_state_service_pb2.SaveAgentStateRequest:
    """Make an automatic save of a JSON state, or of bytes as they are."""
    options.setdefault("run_id", "run-1")
    options.setdefault("checkpoint_type", agent_state_pb2.CHECKPOINT_TYPE_AUTO)
    data = state if isinstance(state, bytes) else json.dumps(state or {"step": 1}).encode()
    return agent_state_service_pb2.SaveAgentStateRequest(
        state=agent_state_pb2.State(data=data, content_type=content_type), **options
    )


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Make a call that must fail, and open what its failure carries."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return opened(error)
    raise AssertionError(f"the call succeeded: {answer}")


def opened(error: grpc.aio.AioRpcError) -> Refusal:
    """Open what a failure carries; it always carries an ErrorInfo."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    details = {detail.type_url.rpartition(".")[2]: _unpacked(detail) for detail in status.details}
    assert len(details) == len(status.details)
    info = details["ErrorInfo"]
    assert info.domain == "statekeep.v1"
    violations = details["BadRequest"].field_violations if "BadRequest" in details else []
    retry = details.get("RetryInfo")
    pushback = trailers.get("grpc-retry-pushback-ms")
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        field=violations[0].field if violations else None,
        retry_after_ms=None if retry is None else retry.retry_delay.ToMilliseconds(),
        pushback_ms=None if pushback is None else int(pushback),
    )


def _unpacked(detail: Any) -> Any:
    message = getattr(error_details_pb2, detail.type_url.rpartition(".")[2])()
    assert detail.Unpack(message)
    return message


@asynccontextmanager
async def connected(
    port: int, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[Wire]:
    """Connect to a server with limits that let its own be seen."""
    options = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
    target = f"127.0.0.1:{port}"
    channel = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    async with channel:
        yield Wire(port, channel)


@asynccontextmanager
async def open_wire(path: Path, database_url: str, **settings: Any) -> AsyncIterator[Wire]:
    """Serve one path as `statekeep serve` would, over a real database."""
    settings.setdefault("port", 0)
    configured = Settings(
        database_url=database_url,
        enable_optimized_persistence=path is Path.OPTIMIZED,
        **settings,
    )
    async with open_server(configured) as running, connected(running.port) as wire:
        yield replace(wire, metrics_port=running.metrics_port)


@asynccontextmanager
async def open_faulty_wire(path: Path, **settings: Any) -> AsyncIterator[tuple[Wire, World]]:
    """Serve one path over a store in memory that fails where a test says so."""
    settings.setdefault("port", 0)
    async with open_world(**settings) as world:
        world.flags = Flags(enable_optimized_persistence=path is Path.OPTIMIZED)
        configured = Settings(database_url="memory", **settings)
        async with (
            serve(world.facade, configured, flags=world.follower) as running,
            connected(running.port) as wire,
        ):
            yield wire, world
