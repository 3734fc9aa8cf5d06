"""Spans as bytes: what the classes made from OpenTelemetry's protos read is what was written."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from statekeep_server.telemetry import wire
from tests.support.collector import attributes

NAMES = st.sampled_from(["statekeep.run.id", "x", "a.b"])
VALUES = st.text(max_size=60) | st.integers(-(2**63), 2**63 - 1)


@given(
    ids=st.tuples(
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=8, max_size=8),
        st.none() | st.binary(min_size=8, max_size=8),
    ),
    given_attributes=st.dictionaries(NAMES, VALUES),
    times=st.tuples(st.integers(0, 2**53), st.integers(0, 2**53)),
    failed=st.booleans(),
    remote=st.booleans(),
    state=st.text(max_size=200),
)
def test_what_was_written_is_read(
    ids: tuple[bytes, bytes, bytes | None],
    given_attributes: dict[str, str | int],
    times: tuple[int, int],
    failed: bool,
    remote: bool,
    state: str,
) -> None:
    trace_id, span_id, parent_id = ids
    written = wire.span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        remote_parent=remote,
        trace_state=state,
        name="statekeep.save",
        kind=2,
        started_us=times[0],
        ended_us=times[1],
        attributes=given_attributes,
        events_and_links=[
            wire.event("happened", times[0], given_attributes),
            wire.link(trace_id, span_id),
        ],
        failed=failed,
    )
    (span,) = ScopeSpans.FromString(written).spans
    assert (span.trace_id, span.span_id) == (trace_id, span_id)
    assert span.parent_span_id == (parent_id or b"")
    assert (span.name, span.kind, span.trace_state) == ("statekeep.save", 2, state)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == tuple(t * 1000 for t in times)
    assert attributes(span.attributes) == given_attributes
    (event,) = span.events
    assert (event.name, event.time_unix_nano) == ("happened", times[0] * 1000)
    assert attributes(event.attributes) == given_attributes
    (link,) = span.links
    assert (link.trace_id, link.span_id) == (trace_id, span_id)
    assert span.status.code == (2 if failed else 0)
    assert span.flags == (0x300 if remote else 0x100)


def test_long_and_odd_texts_are_cut_and_never_fail() -> None:
    texts = {"long": "ä" * 1_000, "lone": "\ud800", "other": None}
    event = wire.event("e", 0, texts)  # type: ignore[arg-type]  # a value that should not come
    written = wire.span(
        trace_id=bytes(16),
        span_id=bytes(8),
        parent_id=None,
        remote_parent=False,
        trace_state="",
        name="n",
        kind=1,
        started_us=0,
        ended_us=0,
        attributes={},
        events_and_links=[event],
        failed=False,
    )
    found = attributes(ScopeSpans.FromString(written).spans[0].events[0].attributes)
    assert found == {"long": "ä" * 128, "lone": "?", "other": "None"}
