"""The receiver that telemetry is sent to while a benchmark runs."""

from typing import Any

import grpc
import pytest

from benchmarks.otlp_receiver import Receiver, new_server
from benchmarks.scenarios.telemetry import sampled_variables


@pytest.mark.parametrize(
    ("method", "signal"),
    [
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "traces"),
        ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", "metrics"),
        ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", "logs"),
    ],
)
async def test_whatever_is_sent_is_taken_and_counted(method: str, signal: str) -> None:
    receiver = Receiver()
    server, port = new_server(receiver)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            export: Any = channel.unary_unary(method)
            assert await export(b"\x0a\x02hi") == b""
            await export(b"")
    finally:
        await server.stop(None)
    assert receiver.counts == {f"{signal}_requests": 2, f"{signal}_bytes": 4}


def test_a_server_is_told_by_the_variables_of_opentelemetry() -> None:
    variables = sampled_variables(4317, 0.01)
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4317"
    assert variables["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
    assert variables["OTEL_TRACES_SAMPLER_ARG"] == "0.01"
