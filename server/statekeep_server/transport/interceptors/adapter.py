"""The plumbing between gRPC and the steps: the one interceptor of the server.

A call is first admitted by its metadata alone, before its message is read: nobody without a token
can make the server receive and parse 16 MiB. Then its handler runs inside the other steps. Health
is open: probes carry no token, and must be answered under load.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from inspect import isasyncgen
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from statekeep_server.domain.errors import DeadlineExceeded, Refused
from statekeep_server.transport import status
from statekeep_server.transport.interceptors.auth import TokenCheck
from statekeep_server.transport.interceptors.call import (
    Call,
    Caller,
    current_call,
    read_caller,
)
from statekeep_server.transport.interceptors.errors import explain
from statekeep_server.transport.interceptors.limiter import Limiter

# What gRPC hands around is untyped by nature: any message of any method. Quoted, because only the
# stubs know these classes as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]

_HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """Runs every call through the steps.

    Args:
        limiter: Counts the calls under way.
        token_check: Refuses calls without the token.
        trust_tenant: Whether the metadata may name the tenant.
        default_deadline_s: For calls that come without a deadline.
        open_ended: The streams, by method, that this deadline does not end.
    """

    def __init__(
        self,
        limiter: Limiter,
        token_check: TokenCheck,
        *,
        trust_tenant: bool,
        default_deadline_s: float,
        open_ended: frozenset[str] = frozenset(),
    ) -> None:
        self._limiter = limiter
        self._token_check = token_check
        self._trust_tenant = trust_tenant
        self._default_deadline_s = default_deadline_s
        self._open_ended = open_ended

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Admit a call, or refuse it without reading its message."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        # gRPC gives None for a method that it does not know, and answers UNIMPLEMENTED itself.
        if handler is None:
            return None
        if method.startswith(_HEALTH):
            return _open(handler, method)
        try:
            caller = self._admit(handler_call_details)
        except Refused as error:
            return _refusal(error, method)
        return self._guarded(handler, method, caller)

    def _admit(self, details: grpc.HandlerCallDetails) -> Caller:
        self._limiter.check()
        metadata = details.invocation_metadata
        self._token_check.check(metadata)
        return read_caller(metadata, trust_tenant=self._trust_tenant)

    def _guarded(self, handler: Handler, method: str, caller: Caller) -> Handler:
        """Rebuild a handler of any of the four kinds so that it runs inside the steps."""
        if handler.request_streaming:
            return self._guarded_requests(handler, method, caller)
        # The stubs of gRPC know these as the synchronous server's.
        decode: Any = handler.request_deserializer
        streams = handler.response_streaming
        serve: Any = handler.unary_stream if streams else handler.unary_unary

        async def answer(message: bytes, context: Context) -> Any:
            async with self._steps(method, caller, context, len(message)):
                # Decoded here, not by gRPC, so that a malformed message has a status too.
                return await serve(decode(message), context)

        make: Any = (
            grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        )
        rebuilt: Handler = make(answer, response_serializer=handler.response_serializer)
        return rebuilt

    def _guarded_requests(self, handler: Handler, method: str, caller: Caller) -> Handler:
        """Rebuild a handler that takes a stream.

        One that answers with a stream is a generator of responses (reflection's), or writes them
        itself.
        """
        decode: Any = handler.request_deserializer
        streams = handler.response_streaming
        serve: Any = handler.stream_stream if streams else handler.stream_unary

        async def answer(messages: AsyncIterator[bytes], context: Context) -> Any:
            async with (
                self._steps(method, caller, context, 0),
                aclosing(_decoded(messages, decode)) as requests,
            ):
                answering = serve(requests, context)
                if not isasyncgen(answering):
                    return await answering
                # Written, not yielded: a generator that gRPC drops would leave the steps late.
                async with aclosing(answering) as responses:
                    async for response in responses:
                        await context.write(response)
                return None

        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if streams
            else grpc.stream_unary_rpc_method_handler
        )
        rebuilt: Handler = make(answer, response_serializer=handler.response_serializer)
        return rebuilt

    @asynccontextmanager
    async def _steps(
        self, method: str, caller: Caller, context: Context, size_bytes: int
    ) -> AsyncIterator[None]:
        """Map errors, count the call, and bound its time."""
        try:
            self._limiter.enter(size_bytes)
            try:
                async with asyncio.timeout(self._begin(method, caller, context)) as timer:
                    yield
            except TimeoutError:
                if not timer.expired():
                    raise
                raise self._too_late() from None
            finally:
                self._limiter.leave(size_bytes)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost step maps every error
            await _abort(error, method, context)

    def _begin(self, method: str, caller: Caller, context: Context) -> float | None:
        """Tell the servicer of its call; return the time limit that gRPC does not keep itself."""
        # The stubs of gRPC do not know that there may be none.
        remaining_s: float | None = context.time_remaining()
        current_call.set(
            Call(
                tenant=caller.tenant,
                previous_attempts=caller.previous_attempts,
                deadline_s=self._deadline_s(method, remaining_s),
            )
        )
        if remaining_s is not None or method in self._open_ended:
            return None
        return self._default_deadline_s

    def _deadline_s(self, method: str, remaining_s: float | None) -> float:
        """Say how long a call may take; of an open-ended one, each save in it."""
        if remaining_s is None or method in self._open_ended:
            return self._default_deadline_s
        return remaining_s

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the call took longer than the {self._default_deadline_s:g} s that calls without a "
            "deadline get; a save may have happened: retry with the same request id"
        )


async def _decoded(messages: AsyncIterator[bytes], decode: Any) -> AsyncGenerator[Any, None]:
    """Decode a stream of messages here, not in gRPC, so that a malformed one has a status too."""
    async for message in messages:
        yield decode(message)


def _open(handler: Handler, method: str) -> Handler:
    """Rebuild a handler of health, whose calls take no step but that of a malformed message.

    gRPC would log one as a bug of the server, and anybody may send it.
    """
    decode: Any = handler.request_deserializer
    streams = handler.response_streaming
    serve: Any = handler.unary_stream if streams else handler.unary_unary

    async def answer(message: bytes, context: Context) -> Any:
        try:
            request = decode(message)
        except DecodeError as error:
            await _abort(error, method, context)
        return await serve(request, context)

    make: Any = (
        grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    )
    rebuilt: Handler = make(answer, response_serializer=handler.response_serializer)
    return rebuilt


def _refusal(error: Refused, method: str) -> Handler:
    """Make a handler that fails without reading the request.

    For the peer a method that takes a stream looks like one that takes a message, and only the
    former is called before anything was received.
    """

    async def refuse(_: object, context: Context) -> NoReturn:
        await _abort(error, method, context)

    return grpc.stream_unary_rpc_method_handler(refuse)


async def _abort(error: Exception, method: str, context: Context) -> NoReturn:
    failed = explain(error, method)
    await context.abort(failed.code, failed.message, status.trailers(failed, random.random))
