"""Spans as OTLP's JSON tells them, and a trace as a tree of lines."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEX_LENGTHS = {16, 32}
"""Of the ids of spans and traces. The same ids have 12 and 24 characters in base64."""
SHOWN = ("statekeep.run.id", "statekeep.path", "statekeep.outcome", "statekeep.version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span.

    Attributes:
        parent_id: Empty for the first of a trace.
        links: Trace and span ids of the spans that it names.
    """

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str]
    links: tuple[tuple[str, str], ...]

    @property
    def duration_ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


def read_spans(resource_spans: Sequence[Mapping[str, Any]]) -> list[Span]:
    """Read `resourceSpans` of OTLP's JSON, with ids in hex or, as protobuf has them, in base64."""
    return [
        _span(span, _attributes(resource.get("resource", {})).get("service.name", ""))
        for resource in resource_spans
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ]


def _span(span: Mapping[str, Any], service: str) -> Span:
    return Span(
        trace_id=_id(span["traceId"]),
        span_id=_id(span["spanId"]),
        parent_id=_id(span.get("parentSpanId", "")),
        service=service,
        name=span["name"],
        start_ns=int(span["startTimeUnixNano"]),
        end_ns=int(span["endTimeUnixNano"]),
        attributes=_attributes(span),
        links=tuple((_id(link["traceId"]), _id(link["spanId"])) for link in span.get("links", ())),
    )


def _id(written: str) -> str:
    if not written or len(written) in HEX_LENGTHS:
        return written
    return base64.b64decode(written).hex()


def _attributes(holder: Mapping[str, Any]) -> dict[str, str]:
    return {
        attribute["key"]: str(next(iter(attribute.get("value", {}).values()), ""))
        for attribute in holder.get("attributes", ())
    }


def draw(spans: Sequence[Span], *, notes: Mapping[str, str]) -> Iterator[str]:
    """Draw a trace, a line for each span, children below their parent in the order of time.

    A span whose parent is not among them stands at the left.

    Args:
        spans: Of one trace.
        notes: More words about some spans, by their ids.
    """
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.start_ns):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def lines(parent: str, depth: int) -> Iterator[str]:
        for span in children.get(parent, ()):
            words = [
                f"{key.removeprefix('statekeep.')}={span.attributes[key]}"
                for key in SHOWN
                if key in span.attributes
            ]
            words += [notes[span.span_id]] if span.span_id in notes else []
            label = f"{span.service:<10} {'  ' * depth}{span.name}"
            yield f"{span.duration_ms:9.2f} ms  {label:<64} {' '.join(words)}".rstrip()
            yield from lines(span.span_id, depth + 1)

    yield from lines("", 0)
