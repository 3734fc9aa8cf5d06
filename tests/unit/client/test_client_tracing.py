"""The spans of a client: its calls have one where OpenTelemetry is set up, and send its context."""

from typing import Any

import pytest
from grpc import StatusCode
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from statekeep import NotFound
from statekeep._tracing import call_span, find_trace
from tests.support.both_clients import Kind, connect
from tests.support.scripted_server import ScriptedServer, fails

LOAD = "statekeep.v1.AgentStateService/LoadAgentState"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Set a provider for this test alone: OpenTelemetry lets a process set one only once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


async def test_a_call_has_a_span_and_its_context_goes_along(
    server: ScriptedServer, kind: Kind, exporter: InMemorySpanExporter
) -> None:
    async with connect(kind, server.target) as client:
        await client.load("run-1")
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == (LOAD, trace.SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": LOAD,
        "rpc.response.status_code": "OK",
    }
    context: Any = span.get_span_context()
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-"
    assert str(server.asked[0].metadata["traceparent"]).startswith(expected)


async def test_a_call_that_fails_says_its_status_and_nothing_else(
    server: ScriptedServer, kind: Kind, exporter: InMemorySpanExporter
) -> None:
    server.will("LoadAgentState", fails(StatusCode.NOT_FOUND, "RUN_NOT_FOUND", "canary"))
    async with connect(kind, server.target) as client:
        with pytest.raises(NotFound):
            await client.load("run-1")
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "NOT_FOUND"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "canary" not in span.to_json()


def test_without_a_provider_there_are_no_spans() -> None:
    assert find_trace() is None
    with call_span(None, object()):
        pass


def test_a_method_without_a_name_has_a_span_all_the_same(exporter: InMemorySpanExporter) -> None:
    with call_span(trace, object()):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["statekeep"]
