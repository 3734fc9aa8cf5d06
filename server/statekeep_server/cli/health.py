"""`statekeep health`: whether a server is ready, as a probe of a container or a unit asks it."""

import asyncio
from typing import TYPE_CHECKING, Annotated, cast

import typer

from statekeep_server.cli.connection import Connection, connected
from statekeep_server.cli.errors import FAILED, UNREACHABLE, WRONG_USAGE, CommandFailed
from statekeep_server.cli.output import console

if TYPE_CHECKING:  # it brings gRPC, which `--help` does not need
    import grpc


@connected
def health(
    service: Annotated[
        str,
        typer.Argument(metavar="SERVICE", help="Which service; the server as a whole if none."),
    ] = "",
    *,
    connection: Connection,
) -> None:
    """Say whether a server is ready, without a token: SERVING or NOT_SERVING.

    Fails with 1 when it is not, and with 3 when it cannot be reached. statekeep.v1.AdminService is
    ready as soon as the server is up; the others need the database.
    """
    from grpc_health.v1 import health_pb2  # late: it imports gRPC

    state = asyncio.run(_ask(service, connection))
    console().print(health_pb2.HealthCheckResponse.ServingStatus.Name(state))
    if state != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(FAILED)


async def _ask(service: str, connection: Connection) -> int:
    import grpc  # late, like the stubs
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with _channel(connection) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=connection.timeout_s
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                text = f"the server has no service {service!r}"
                raise CommandFailed(text, code=WRONG_USAGE) from None
            raise CommandFailed(f"no server answers: {error.details()}", code=UNREACHABLE) from None
    return cast("int", answer.status)


def _channel(connection: Connection) -> "grpc.aio.Channel":
    from statekeep._channel import open_async_channel
    from statekeep._config import resolve

    try:
        config = resolve(
            connection.target,
            token="",  # health is open to everybody
            tls=connection.tls_ca or (True if connection.tls else None),
            tenant=None,
            timeout_s=connection.timeout_s,
            metadata=None,
            insecure=True,
        )
        return open_async_channel(config)
    except ValueError as error:
        raise CommandFailed(str(error), code=WRONG_USAGE) from None
    except OSError as error:
        text = f"cannot read {error.filename}: {error.strerror}"
        raise CommandFailed(text, code=WRONG_USAGE) from None
