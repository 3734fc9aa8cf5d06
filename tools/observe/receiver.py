"""A small receiver of OTLP over gRPC, in the place of Jaeger where there is none."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

from tools.observe.processes import HOST
from tools.observe.spans import Span, read_spans

MAX_TRACES = 10_000
"""More than a look at a server makes; the oldest make room."""


class Receiver(services.TraceServiceServicer):
    """Keeps the newest traces in memory."""

    kind = "a small receiver of ours"
    page = "none: the receiver of ours has no page"

    def __init__(self) -> None:
        self.endpoint = ""
        self._traces: dict[str, list[Span]] = {}

    async def Export(self, request: Any, _: Any) -> Any:  # noqa: N802  # the rpc's name
        """Take spans."""
        for span in read_spans(MessageToDict(request).get("resourceSpans", [])):
            self._traces.setdefault(span.trace_id, []).append(span)
        while len(self._traces) > MAX_TRACES:
            del self._traces[next(iter(self._traces))]
        return messages.ExportTraceServiceResponse()

    def trace_ids(self) -> Iterable[str]:
        """All of them."""
        return tuple(self._traces)

    def address(self, trace_id: str) -> str:
        """Where a trace is found: nowhere but here."""
        return f"trace {trace_id}"

    async def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have arrived so far."""
        return list(self._traces.get(trace_id, ()))


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Listen on a free port of loopback."""
    service = Receiver()
    server = grpc.aio.server()
    untyped: Any = services
    untyped.add_TraceServiceServicer_to_server(service, server)
    service.endpoint = f"http://{HOST}:{server.add_insecure_port(f'{HOST}:0')}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(grace=None)
