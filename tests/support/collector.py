"""A collector that exists only as its receiver: it speaks OTLP over gRPC and keeps what it gets."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass
class Collector:
    """What was received; `refuse` and `hang` make it a bad one."""

    port: int = 0
    refuse: bool = False
    hang: bool = False
    requests: int = 0
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def receive(self, request: Any, kept: list[Any], context: Any) -> None:
        self.requests += 1
        if self.hang:
            await asyncio.Event().wait()
        if self.refuse:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        kept.append(request)

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans() if span.name == name]

    def points(self) -> Iterator[tuple[Any, dict[str, str], Any]]:
        """The metrics of the last report, with their labels and points."""
        for resource in self.metrics[-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        yield metric, attributes(point.attributes), point

    def value(self, name: str, **labels: str) -> float:
        (point,) = (
            point
            for metric, found, point in self.points()
            if metric.name == name and found == labels
        )
        return point.as_double or float(point.as_int)

    def everything(self) -> bytes:
        return b"".join(each.SerializeToString() for each in (*self.traces, *self.metrics))


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


# ruff: noqa: N802 - the contract names these methods


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:
        await self._collector.receive(request, self._collector.traces, context)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(self, request: Any, context: Any) -> Any:
        await self._collector.receive(request, self._collector.metrics, context)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector on loopback."""
    collector = Collector()
    server: Any = grpc.aio.server()
    traces: Any = trace_service_pb2_grpc  # generated without types
    traces.add_TraceServiceServicer_to_server(_Traces(collector), server)
    metrics: Any = metrics_service_pb2_grpc
    metrics.add_MetricsServiceServicer_to_server(_Metrics(collector), server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)
