"""A tracer whose spans stay in this process, and the spans of what ran under it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from statekeep_server.telemetry.context import Sampling
from statekeep_server.telemetry.spans import Tracer
from tests.support.clock import ManualClock


class Traced:
    """What was written, read back with the classes of OpenTelemetry's own protos."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def spans(self) -> list[Any]:
        return list(ScopeSpans.FromString(b"".join(self.written)).spans)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans() if span.name == name]


@contextmanager
def traced() -> Iterator[Traced]:
    """Record what runs inside, under the span `root`."""
    spans = Traced()
    span = Tracer(Sampling(), spans.written.append, ManualClock().now_us).begin_call("root", None)
    assert span is not None
    with span:
        yield spans
