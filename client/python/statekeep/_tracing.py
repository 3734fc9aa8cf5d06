"""A span around each call, where OpenTelemetry is installed and a tracer provider is set.

The server's span becomes its child, for the trace context goes along (see `_metadata`).
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from statekeep._errors import StatekeepError


def find_trace() -> Any:
    """Find OpenTelemetry's module of traces; None without it, or while nobody wants spans."""
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ModuleNotFoundError:
        return None
    return None if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else trace


@contextmanager
def call_span(trace: Any, method: object) -> Iterator[None]:
    """Make the span of a call while the context is open, with names by OpenTelemetry's conventions.

    A span holds how the call went, and nothing of what was sent.
    """
    if trace is None:
        yield
        return
    path = getattr(method, "_method", b"")  # gRPC says it nowhere else
    name = (path.decode() if isinstance(path, bytes) else str(path)).lstrip("/") or "statekeep"
    with trace.get_tracer("statekeep").start_as_current_span(
        name,
        kind=trace.SpanKind.CLIENT,
        attributes={"rpc.system.name": "grpc", "rpc.method": name},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except StatekeepError as error:
            code = error.code.name
            span.set_attributes({"rpc.response.status_code": code, "error.type": code})
            span.set_status(trace.StatusCode.ERROR)
            raise
        span.set_attribute("rpc.response.status_code", "OK")
