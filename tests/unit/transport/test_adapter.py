"""The plumbing with servicers that do what ours do not: abort, stream, fail while streaming."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from statekeep_server.transport.interceptors.adapter import GuardedHandlers
from statekeep_server.transport.interceptors.auth import TokenCheck
from statekeep_server.transport.interceptors.call import current_call
from statekeep_server.transport.interceptors.limiter import Limiter


async def abort(message: bytes, context: Any) -> bytes:
    await context.abort(StatusCode.FAILED_PRECONDITION, "its own status")
    return message


async def time_out(message: bytes, context: Any) -> bytes:
    raise TimeoutError("secret")


async def tell_call(message: bytes, context: Any) -> bytes:
    call = current_call.get()
    return f"{call.tenant} {call.previous_attempts} {call.deadline_s:.0f}".encode()


async def wait(message: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    return message


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        if request == b"fail":
            raise ValueError("secret")
        yield request


HANDLERS = {
    name: grpc.unary_unary_rpc_method_handler(serve, bytes, bytes)
    for name, serve in {
        "Abort": abort,
        "TimeOut": time_out,
        "Tell": tell_call,
        "Wait": wait,
    }.items()
} | {"Echo": grpc.stream_stream_rpc_method_handler(echo, bytes, bytes)}


@asynccontextmanager
async def served(limiter: Limiter) -> AsyncIterator[Any]:
    handlers = GuardedHandlers(
        limiter,
        TokenCheck(None),
        trust_tenant=False,
        default_deadline_s=30,
        draining=asyncio.Event(),
    )
    server = grpc.aio.server(handlers=[handlers])
    handlers.add_registered_method_handlers("test.Odd", HANDLERS)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_status_that_a_servicer_sent_itself_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(Limiter(1)) as channel:
        error = await failure(channel.unary_unary("/test.Odd/Abort")(b""))
        assert (error.code(), error.details()) == (
            StatusCode.FAILED_PRECONDITION,
            "its own status",
        )
    assert not caplog.records


async def test_a_timeout_inside_is_a_bug_and_not_the_callers_deadline() -> None:
    async with served(Limiter(1)) as channel:
        error = await failure(channel.unary_unary("/test.Odd/TimeOut")(b""))
        assert error.code() is StatusCode.INTERNAL
        assert "secret" not in str(error)


async def test_a_servicer_knows_its_call() -> None:
    async with served(Limiter(1)) as channel:
        tell: Any = channel.unary_unary("/test.Odd/Tell")
        assert await tell(b"") == b"default 0 30"
        tenant, previous, deadline_s = (await tell(b"", timeout=600)).split()
        assert (tenant, previous) == (b"default", b"0")
        assert 500 < int(deadline_s) < 610  # gRPC rounds a timeout up on its way


async def test_a_cancelled_call_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limiter = Limiter(1)
    async with served(limiter) as channel:
        call: Any = channel.unary_unary("/test.Odd/Wait")(b"")
        while not limiter.calls:
            await asyncio.sleep(0.001)
        call.cancel()
        while limiter.calls:
            await asyncio.sleep(0.001)
    assert not caplog.records


@pytest.mark.parametrize("end", ["done", "cancelled", "failed"])
async def test_a_stream_is_counted_until_it_ends(end: str) -> None:
    limiter = Limiter(1)
    async with served(limiter) as channel:
        call: Any = channel.stream_stream("/test.Odd/Echo")()
        await call.write(b"x")
        assert await call.read() == b"x"
        assert limiter.calls == 1
        second: Any = channel.stream_stream("/test.Odd/Echo")()
        assert (await failure(second.read())).code() is StatusCode.RESOURCE_EXHAUSTED
        if end == "done":
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        elif end == "cancelled":
            call.cancel()
        else:
            await call.write(b"fail")
            error = await failure(call.read())
            assert error.code() is StatusCode.INTERNAL
            assert "secret" not in str(error)
        while limiter.calls:
            await asyncio.sleep(0.001)
