"""OTLP over gRPC, by OpenTelemetry's exporters, which read the OTEL_EXPORTER_OTLP_* variables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from statekeep_server.telemetry.buckets import Bucketed
from statekeep_server.telemetry.instruments import Kind
from statekeep_server.telemetry.measures import Reading

SCOPE = "statekeep"


class SpanSender(OTLPSpanExporter):
    """Sends spans that are bytes already (`wire`).

    Only what the exporter makes of its data is another; the channel, the headers, the retries and
    their time limit are its own.
    """

    def __init__(self, resource: Resource, version: str) -> None:
        super().__init__()
        self._frame = ExportTraceServiceRequest()
        spans = self._frame.resource_spans.add()
        # An encoded metric brings its resource along: the SDK has no other public way to write one.
        spans.resource.CopyFrom(_written(resource))
        scope = spans.scope_spans.add()
        scope.scope.name, scope.scope.version = SCOPE, version

    def send(self, spans: Sequence[bytes]) -> bool:
        """Send spans; say whether the collector took them."""
        encoded: Any = spans
        return self.export(encoded) is SpanExportResult.SUCCESS

    def _translate_data(self, data: Sequence[Any]) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.CopyFrom(self._frame)
        request.resource_spans[0].scope_spans[0].MergeFromString(b"".join(data))
        return request


def make_resource(attributes: Mapping[str, str]) -> Resource:
    """Make the resource of what is sent."""
    return Resource.create(dict(attributes))


def _written(resource: Resource) -> Any:
    empty = MetricsData([ResourceMetrics(resource, [], "")])
    return encode_metrics(empty).resource_metrics[0].resource


class MetricSender:
    """Sends readings.

    Args:
        started_us: When the counting began.
        now_us: Tells the time.
    """

    def __init__(
        self, resource: Resource, version: str, *, started_us: int, now_us: Callable[[], int]
    ) -> None:
        self._exporter = OTLPMetricExporter()
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE, version)
        self._started_ns = started_us * 1_000
        self._now_us = now_us

    def encode(self, readings: Iterable[Reading]) -> MetricsData:
        """Put readings into the SDK's form."""
        now_ns = self._now_us() * 1_000
        metrics = [self._metric(reading, now_ns) for reading in readings]
        scope = ScopeMetrics(self._scope, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def send(self, batch: Sequence[MetricsData]) -> bool:
        """Send what was encoded last; say whether the collector took it."""
        return self._exporter.export(batch[-1]) is MetricExportResult.SUCCESS

    def cancel(self) -> None:
        """Let a send under way fail soon."""
        self._exporter.shutdown()

    def _metric(self, reading: Reading, now_ns: int) -> Metric:
        metric = reading.metric
        data: Sum | Gauge | Histogram
        if metric.kind is Kind.HISTOGRAM:
            data = Histogram(
                [
                    self._histogram(dict(zip(metric.labels, labels, strict=True)), value, now_ns)
                    for labels, value in reading.points.items()
                    if isinstance(value, Bucketed)
                ],
                AggregationTemporality.CUMULATIVE,
            )
            return Metric(metric.name, metric.description, metric.unit, data)
        points = [
            NumberDataPoint(
                attributes=dict(zip(metric.labels, labels, strict=True)),
                start_time_unix_nano=self._started_ns,
                time_unix_nano=now_ns,
                value=float(value),
            )
            for labels, value in reading.points.items()
            if not isinstance(value, Bucketed)
        ]
        if metric.kind is Kind.COUNTER:
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge(points)
        return Metric(metric.name, metric.description, metric.unit, data)

    def _histogram(
        self, attributes: dict[str, str], value: Bucketed, now_ns: int
    ) -> HistogramDataPoint:
        unknown: Any = None  # the message knows that there may be none, the SDK's types do not
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=self._started_ns,
            time_unix_nano=now_ns,
            count=sum(value.counts),
            sum=value.sum,
            bucket_counts=value.counts,
            explicit_bounds=value.bounds,
            min=unknown,
            max=unknown,
            exemplars=[
                Exemplar(
                    filtered_attributes={},
                    value=each.value,
                    time_unix_nano=each.at_us * 1_000,
                    span_id=int.from_bytes(each.span_id),
                    trace_id=int.from_bytes(each.trace_id),
                )
                for each in value.exemplars.values()
            ],
        )
