"""How a server starts, says that it is ready, describes itself and stops."""

import asyncio
import logging
import pathlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from statekeep.v1 import admin_service_pb2 as admin_pb
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.config import Settings
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import Path
from statekeep_server.transport.health import MAX_WATCHES
from statekeep_server.transport.listen import CannotServe
from statekeep_server.transport.server import ADMIN_SERVICE, STATE_SERVICE, serve
from tests.support.tls import CERTIFICATE, KEY
from tests.support.wire import (
    GatedStore,
    Wire,
    connected,
    gate,
    open_faulty_wire,
    refusal,
    save_request,
)
from tests.support.world import World, open_world

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database is enough here: nothing here is about it."""
    return sqlite_url


def settings(**options: Any) -> Settings:
    return Settings(database_url="memory", **{"port": 0, **options})


def asked(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


# Health.


async def test_a_server_that_works_is_serving(wire: Wire) -> None:
    for service in ("", STATE_SERVICE, ADMIN_SERVICE, "database"):
        assert (await wire.health.Check(asked(service))).status == SERVING
    listed = (await wire.health.List(health_pb2.HealthListRequest())).statuses
    assert {name: answer.status for name, answer in listed.items()} == dict.fromkeys(
        ("", STATE_SERVICE, ADMIN_SERVICE, "database"), SERVING
    )


async def test_nobody_knows_other_services(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.health.Check(asked("other"))
    assert caught.value.code() is StatusCode.NOT_FOUND
    watch = wire.health.Watch(asked("other"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    watch.cancel()


async def test_health_follows_the_database_and_admin_answers_without_it(path: Path) -> None:
    async with (
        open_world() as world,
        serve(world.facade, settings(), health_interval_s=0.01, flags=world.follower) as running,
        connected(running.port) as wire,
    ):
        store = world.optimized  # the path that a world begins with
        watch = wire.health.Watch(asked(STATE_SERVICE))
        assert (await watch.read()).status == SERVING
        store.always["check"] = StorageUnavailable("UNREACHABLE")
        assert (await watch.read()).status == NOT_SERVING
        for name in ("", "database"):
            assert (await wire.health.Check(asked(name))).status == NOT_SERVING
        assert (await wire.health.Check(asked(ADMIN_SERVICE))).status == SERVING
        await wire.admin.GetStats(admin_pb.GetStatsRequest())
        store.always.clear()
        assert (await watch.read()).status == SERVING


async def test_watches_are_bounded() -> None:
    async with open_faulty_wire(Path.STANDARD) as (wire, _):
        watches = [wire.health.Watch(asked("")) for _ in range(MAX_WATCHES)]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.health.Watch(asked("")).read()
        assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
        for watch in watches:
            watch.cancel()
        await wire.works()


# Stopping.


@dataclass
class Stopping:
    """A server with a save that waits at a gate, told to stop when `stop` is set."""

    world: World
    gated: GatedStore
    wire: Wire
    save: Any
    stop: asyncio.Event
    server: asyncio.Task[None]

    async def commits_once(self) -> None:
        """Open the gate; the save is committed whatever became of its call."""
        self.gated.gate.set()
        await asyncio.wait([self.server])
        while self.world.detached.running:
            await asyncio.sleep(0.001)
        runs = (await self.world.memory.list_runs("default", limit=9)).runs
        assert [run.version for run in runs] == [1]


@asynccontextmanager
async def stopping(**options: Any) -> AsyncIterator[Stopping]:
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with open_world() as world:
        gated = gate(world)

        async def run() -> None:
            async with serve(world.facade, settings(**options), flags=world.follower) as running:
                port.set_result(running.port)
                await stop.wait()

        server = asyncio.create_task(run())
        async with connected(await port) as wire:
            save = wire.state.SaveAgentState(save_request())
            await gated.arrived(1)
            try:
                yield Stopping(world, gated, wire, save, stop, server)
            finally:
                gated.gate.set()
                stop.set()
                await asyncio.wait([server])


async def test_a_server_that_stops_says_so_and_finishes_what_it_has_begun() -> None:
    async with stopping(drain_timeout_s=60) as s:
        watch = s.wire.health.Watch(asked(""))
        assert (await watch.read()).status == SERVING
        s.stop.set()
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.wire.state.SaveAgentState(save_request())
        assert caught.value.code() is StatusCode.UNAVAILABLE
        assert not s.server.done()
        s.gated.gate.set()
        assert (await s.save).version == 1
        await s.server
        await s.commits_once()


async def test_a_drain_is_bounded_and_its_commit_is_not_lost() -> None:
    async with stopping(drain_timeout_s=0.05) as s:
        s.stop.set()
        await s.server
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.save
        assert caught.value.code() in {StatusCode.UNAVAILABLE, StatusCode.CANCELLED}
        await s.commits_once()


async def test_a_second_signal_ends_the_drain_and_its_commit_is_not_lost() -> None:
    async with stopping(drain_timeout_s=60) as s:
        watch = s.wire.health.Watch(asked(""))
        while (await watch.read()) is not grpc.aio.EOF:
            s.stop.set()
        s.server.cancel()
        await asyncio.wait([s.server])
        assert s.server.cancelled()
        with pytest.raises(grpc.aio.AioRpcError):
            await s.save
        await s.commits_once()


# Where it listens.


async def test_a_port_in_use_is_said() -> None:
    async with open_world() as world:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(CannotServe, match=rf"127\.0\.0\.1:{port}: Address already in use"):
                await serve(world.facade, settings(port=port), flags=world.follower).__aenter__()


async def test_two_servers_do_not_share_a_port() -> None:
    async with (
        open_world() as world,
        serve(world.facade, settings(), flags=world.follower) as running,
    ):
        with pytest.raises(CannotServe, match="Address already in use"):
            await serve(
                world.facade, settings(port=running.port), flags=world.follower
            ).__aenter__()


async def test_an_accidental_opening_is_refused() -> None:
    async with open_world() as world:
        with pytest.raises(CannotServe, match="--insecure"):
            await serve(world.facade, settings(host="0.0.0.0"), flags=world.follower).__aenter__()
        async with (
            serve(
                world.facade, settings(host="0.0.0.0", insecure=True), flags=world.follower
            ) as running,
            connected(running.port) as wire,
        ):
            await wire.works()


@pytest.fixture
def tls(tmp_path: pathlib.Path) -> dict[str, str]:
    """The settings of a server with a certificate."""
    certificate, key = tmp_path / "localhost.pem", tmp_path / "localhost.key"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    return {"tls_certificate_path": str(certificate), "tls_key_path": str(key)}


async def test_tls_and_a_token_open_any_address(tls: dict[str, str]) -> None:
    async with (
        open_world() as world,
        serve(
            world.facade, settings(host="0.0.0.0", token="t", **tls), flags=world.follower
        ) as running,
    ):
        credentials = grpc.ssl_channel_credentials(CERTIFICATE.encode())
        async with connected(running.port, credentials) as wire:
            assert (await refusal(wire.state.SaveAgentState(save_request()))).reason == (
                "UNAUTHENTICATED"
            )
            saved = await wire.state.SaveAgentState(
                save_request(), metadata=[("authorization", "Bearer t")]
            )
            assert saved.version == 1
        async with connected(running.port) as plaintext:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await plaintext.state.SaveAgentState(save_request())
            assert caught.value.code() is StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"tls_key_path": "no-such.key"}, "cannot read the TLS key no-such.key: No such file"),
        ({"tls_certificate_path": __file__}, "certificate and key"),
    ],
)
async def test_a_certificate_that_cannot_be_used_is_said(
    tls: dict[str, str], part: dict[str, str], says: str
) -> None:
    async with open_world() as world:
        with pytest.raises(CannotServe, match=says):
            await serve(
                world.facade, settings(**{**tls, **part}), flags=world.follower
            ).__aenter__()


# Reflection.

VERSIONS = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_describes_itself(wire: Wire, version: str) -> None:
    call: Any = wire.channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = (await call.read()).list_services_response.service
    assert {service.name for service in listed} == {
        STATE_SERVICE,
        ADMIN_SERVICE,
        "grpc.health.v1.Health",
        *VERSIONS,
    }
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=STATE_SERVICE))
    files = (await call.read()).file_descriptor_response.file_descriptor_proto
    described = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in files]
    methods = {
        method.name for file in described for service in file.service for method in service.method
    }
    assert "SaveAgentState" in methods
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("version", VERSIONS)
async def test_reflection_survives_nonsense(wire: Wire, version: str) -> None:
    call: Any = wire.channel.stream_stream(f"/{version}/ServerReflectionInfo")()
    await call.write(b"\xff\xff")
    refused = await refusal(call.read())
    assert (refused.code, refused.field) == (StatusCode.INVALID_ARGUMENT, "request")
    await wire.works()


# What no service has.


@pytest.mark.parametrize(
    "method", ["/statekeep.v1.AgentStateService/Nothing", "/other.Service/Save", "/"]
)
async def test_an_unknown_method_is_unimplemented(wire: Wire, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.raw(method)(b"")
    assert caught.value.code() is StatusCode.UNIMPLEMENTED
    await wire.works()


async def test_a_good_day_leaves_no_warning(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await wire.works()
    await refusal(wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="nobody")))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
