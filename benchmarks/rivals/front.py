"""The gRPC front that rivals stand behind: the same contract, the same options, nothing more.

    python -m benchmarks.rivals.front echo
    python -m benchmarks.rivals.front orm URL
    python -m benchmarks.rivals.front least URL
    python -m benchmarks.rivals.front prepared URL
    python -m benchmarks.rivals.front stored URL
    python -m benchmarks.rivals.front row URL

Prints its port and serves until SIGTERM. The address of a database comes through the environment
variable `BENCH_DATABASE_URL`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

from statekeep.v1 import agent_state_service_pb2 as messages
from statekeep.v1.agent_state_service_pb2_grpc import add_AgentStateServiceServicer_to_server

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As statekeep's own."""

Save = Callable[[messages.SaveAgentStateRequest], Awaitable[messages.SaveAgentStateResponse]]
Load = Callable[[messages.LoadAgentStateRequest], Awaitable[messages.LoadAgentStateResponse]]

ECHO_PATH = "/statekeep.bench.Echo/Echo"


class _Front:
    """A servicer of the two calls that rivals can answer."""

    def __init__(self, save: Save, load: Load) -> None:
        self._save, self._load = save, load

    async def SaveAgentState(  # noqa: N802 -- the name is the contract's
        self, request: messages.SaveAgentStateRequest, _context: object
    ) -> messages.SaveAgentStateResponse:
        return await self._save(request)

    async def LoadAgentState(  # noqa: N802 -- the name is the contract's
        self, request: messages.LoadAgentStateRequest, _context: object
    ) -> messages.LoadAgentStateResponse:
        return await self._load(request)

    def __getattr__(self, name: str) -> Any:
        return None  # the other calls of the contract


async def _echo(
    request: messages.SaveAgentStateRequest, _context: object
) -> messages.SaveAgentStateRequest:
    return request


def _new_server() -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 4_096),
        ]
    )


async def _serve(server: grpc.aio.Server) -> None:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(1.0)


async def _serve_echo() -> None:
    server = _new_server()
    handler = grpc.unary_unary_rpc_method_handler(
        _echo,
        request_deserializer=messages.SaveAgentStateRequest.FromString,
        response_serializer=messages.SaveAgentStateRequest.SerializeToString,
    )
    service, method = ECHO_PATH.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    await _serve(server)


@asynccontextmanager
async def _keeper(kind: str, url: str) -> AsyncIterator[tuple[Save, Load]]:
    # Late: an echo needs no database, a row no ORM.
    if kind == "orm":
        from benchmarks.rivals.orm import open_orm

        async with open_orm(url) as orm:
            yield orm.save, _not_here
    elif kind == "least":
        from benchmarks.rivals.least import open_least

        async with open_least(url) as least:
            yield least.save, _not_here
    elif kind in {"prepared", "stored"}:
        from benchmarks.rivals import steps

        open_step = steps.open_prepared if kind == "prepared" else steps.open_stored
        async with open_step(url) as save:
            yield save, _not_here
    else:
        from benchmarks.rivals.rows import open_rows

        async with open_rows(url) as rows:
            yield rows.save, rows.load


async def _not_here(_: messages.LoadAgentStateRequest) -> messages.LoadAgentStateResponse:
    raise NotImplementedError


async def _main(kind: str) -> None:
    if kind == "echo":
        await _serve_echo()
        return
    async with _keeper(kind, os.environ["BENCH_DATABASE_URL"]) as (save, load):
        server = _new_server()
        front: Any = _Front(save, load)
        add_AgentStateServiceServicer_to_server(front, server)
        await _serve(server)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
