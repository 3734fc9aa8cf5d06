"""The plumbing between gRPC and the steps: every handler of the server, wrapped once, at the start.

A call is first admitted by its metadata alone, before its message is read: nobody without a token
can make the server receive and parse 16 MiB. Then its handler runs inside the other steps. Health
is open: probes carry no token, and must be answered under load.

No interceptor: gRPC would build its chain and wrap the handler anew for every call.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from inspect import isasyncgen
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from statekeep_server.domain.errors import DeadlineExceeded, Refused, ShuttingDown
from statekeep_server.telemetry import names
from statekeep_server.telemetry.calls import Calls
from statekeep_server.telemetry.context import read_parent
from statekeep_server.telemetry.spans import current, current_ids, remember_caller
from statekeep_server.transport import status
from statekeep_server.transport.interceptors.auth import TokenCheck
from statekeep_server.transport.interceptors.call import (
    Call,
    Metadata,
    current_call,
    current_caller,
    read_caller,
)
from statekeep_server.transport.interceptors.errors import explain
from statekeep_server.transport.interceptors.limiter import Limiter

# What gRPC hands around is untyped by nature: any message of any method. Quoted, because only the
# stubs know these classes as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_metadata: ContextVar[Metadata] = ContextVar("metadata", default=())
"""Of the call that the running task serves; only where calls are watched."""

_NAMES = {each.value[0]: each.name for each in grpc.StatusCode}
_HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"


class GuardedHandlers(grpc.GenericRpcHandler):
    """Runs every call through the steps.

    Servicers register their handlers here, as they would with a server; the server then gets all
    of them as this one.

    Args:
        limiter: Counts the calls under way.
        token_check: Refuses calls without the token.
        trust_tenant: Whether the metadata may name the tenant.
        default_deadline_s: For calls that come without a deadline.
        open_ended: The streams, by method, that this deadline does not end.
        calls: Watches calls; None where nobody asks how they went. Health is not watched.
        draining: Set when the server stops: calls that come then are refused. Health is not.

    Attributes:
        arrived: How many calls have come, refused ones and those of health included.
    """

    def __init__(
        self,
        limiter: Limiter,
        token_check: TokenCheck,
        *,
        trust_tenant: bool,
        default_deadline_s: float,
        open_ended: frozenset[str] = frozenset(),
        calls: Calls | None = None,
        draining: asyncio.Event,
    ) -> None:
        self.arrived = 0
        self._draining = draining
        self._calls = calls
        self._steps = self._within_steps if calls is None else self._watched_steps
        self._limiter = limiter
        self._token_check = token_check
        self._trust_tenant = trust_tenant
        self._default_deadline_s = default_deadline_s
        self._open_ended = open_ended
        self._guarded: dict[str, Handler] = {}
        self._open: dict[str, Handler] = {}

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Take the handlers of a service."""
        for name, handler in method_handlers.items():
            method = f"/{service_name}/{name}"
            if method.startswith(_HEALTH):
                self._open[method] = _open(handler, method)
            else:
                self._guarded[method] = self._guard(handler, method)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Do nothing: generated code registers its handlers in both ways."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        """Admit a call, or refuse it without reading its message."""
        self.arrived += 1
        method = handler_call_details.method
        handler = self._guarded.get(method)
        if handler is None:
            # gRPC answers UNIMPLEMENTED itself for a method that nobody has.
            return self._open.get(method)
        metadata = handler_call_details.invocation_metadata
        if self._calls is not None:
            # The handler runs in the same task.
            _metadata.set(metadata)
        try:
            if self._draining.is_set():
                raise ShuttingDown
            self._limiter.check()
            self._token_check.check(metadata)
            current_caller.set(read_caller(metadata, trust_tenant=self._trust_tenant))
        except Refused as error:
            return self._refusal(error, method)
        return handler

    def _guard(self, handler: Handler, method: str) -> Handler:
        """Rebuild a handler of any of the four kinds so that it runs inside the steps."""
        if handler.request_streaming:
            return self._guard_requests(handler, method)
        # The stubs of gRPC know these as the synchronous server's.
        decode: Any = handler.request_deserializer
        streams = handler.response_streaming
        serve: Any = handler.unary_stream if streams else handler.unary_unary

        async def answer(message: bytes, context: Context) -> Any:
            # Decoded here, not by gRPC, so that a malformed message has a status too.
            return await self._steps(
                method, context, len(message), lambda: serve(decode(message), context)
            )

        make: Any = (
            grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        )
        rebuilt: Handler = make(answer, response_serializer=handler.response_serializer)
        return rebuilt

    def _guard_requests(self, handler: Handler, method: str) -> Handler:
        """Rebuild a handler that takes a stream.

        One that answers with a stream is a generator of responses (reflection's), or writes them
        itself.
        """
        decode: Any = handler.request_deserializer
        streams = handler.response_streaming
        serve: Any = handler.stream_stream if streams else handler.stream_unary

        async def answer_all(messages: AsyncIterator[bytes], context: Context) -> Any:
            async with aclosing(_decoded(messages, decode)) as requests:
                answering = serve(requests, context)
                if not isasyncgen(answering):
                    return await answering
                # Written, not yielded: a generator that gRPC drops would leave the steps late.
                async with aclosing(answering) as responses:
                    async for response in responses:
                        await context.write(response)
                return None

        async def answer(messages: AsyncIterator[bytes], context: Context) -> Any:
            return await self._steps(method, context, 0, lambda: answer_all(messages, context))

        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if streams
            else grpc.stream_unary_rpc_method_handler
        )
        rebuilt: Handler = make(answer, response_serializer=handler.response_serializer)
        return rebuilt

    async def _within_steps(
        self,
        method: str,
        context: Context,
        size_bytes: int,
        serve: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Map errors, count the call, and bound its time."""
        try:
            self._limiter.enter(size_bytes)
            try:
                if self._begin(method, context):
                    return await serve()
                return await self._in_time(serve)
            finally:
                self._limiter.leave(size_bytes)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost step maps every error
            await _abort(error, method, context)

    async def _watched_steps(
        self,
        method: str,
        context: Context,
        size_bytes: int,
        serve: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Take the same steps, and tell how long they took, how they ended, and to which trace."""
        assert self._calls is not None  # noqa: S101 - chosen by that
        with self._calls.begin(method, _metadata.get()) as call:
            try:
                return await self._within_steps(method, context, size_bytes, serve)
            except grpc.aio.AbortError:
                call.status = _status_name(context)
                raise
            except asyncio.CancelledError:
                call.status = grpc.StatusCode.CANCELLED.name
                raise

    def _refusal(self, error: Refused, method: str) -> Handler:
        """Make a handler that fails without reading the request.

        For the peer a method that takes a stream looks like one that takes a message, and only the
        former is called before anything was received.
        """

        async def refuse(_: object, context: Context) -> Any:
            if self._calls is None:
                await _abort(error, method, context)
            with self._calls.begin(method, _metadata.get()) as call:
                try:
                    await _abort(error, method, context)
                finally:
                    call.status = _status_name(context)

        return grpc.stream_unary_rpc_method_handler(refuse)

    def _begin(self, method: str, context: Context) -> bool:
        """Tell the servicer of its call; say whether gRPC, or nobody, keeps its time."""
        # The stubs of gRPC do not know that there may be none.
        remaining_s: float | None = context.time_remaining()
        open_ended = method in self._open_ended
        # An open-ended call has this for each save in it.
        unbounded = remaining_s is None or open_ended
        deadline_s = self._default_deadline_s if unbounded or remaining_s is None else remaining_s
        current_call.set(Call(current_caller.get(), deadline_s))
        return remaining_s is not None or open_ended

    async def _in_time(self, serve: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(self._default_deadline_s) as timer:
                return await serve()
        except TimeoutError:
            if not timer.expired():
                raise
            raise self._too_late() from None

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


def _status_name(context: Context) -> str:
    """Name the status that a call was ended with."""
    code: Any = context.code()  # a number, as gRPC keeps it
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")


async def _abort(error: Exception, method: str, context: Context) -> NoReturn:
    if current_ids() is None:
        # So that a line about it says the caller's trace, also where calls are not watched.
        remember_caller(read_parent(context.invocation_metadata() or ()))
    failed = explain(error, method)
    span = current()
    if span is not None:
        span.event(names.FAILURE, failed.reason)
    await context.abort(failed.code, failed.message, status.trailers(failed, random.random))
