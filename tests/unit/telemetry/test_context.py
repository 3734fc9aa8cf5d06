"""The trace context of a call, and whether it is recorded: as OpenTelemetry's own code decides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from statekeep_server.telemetry.context import (
    Parent,
    Sampling,
    parse_parent,
    read_parent,
    read_sampling,
)

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
IDS = st.integers(1, 2**128 - 1)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD[:-1] + "0",
        GOOD[:-2] + "03",
        "01" + GOOD[2:] + "-more",
        "ff" + GOOD[2:],
        GOOD + "-more",
        GOOD.upper(),
        GOOD.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        GOOD.replace("b7ad6b7169203331", "0" * 16),
        GOOD[:-1],
        "",
        "00-x-y-z",
        GOOD.replace("0af", "\uff10af"),
    ],
)
def test_a_traceparent_is_read_as_opentelemetry_reads_it(text: str) -> None:
    theirs = get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": text})
    ).get_span_context()
    ours = parse_parent(text)
    if not theirs.is_valid:
        assert ours is None
    else:
        assert ours is not None
        assert int.from_bytes(ours.trace_id) == theirs.trace_id
        assert int.from_bytes(ours.span_id) == theirs.span_id
        assert ours.sampled == theirs.trace_flags.sampled


def test_a_caller_is_found_in_the_metadata_of_a_call() -> None:
    parent = read_parent([("x", "y"), ("traceparent", GOOD), ("tracestate", "a=b")])
    assert parent is not None
    assert parent.state == "a=b"
    assert read_parent([("traceparent", GOOD), ("tracestate", "a=b"), ("tracestate", "c=d")]) == (
        Parent(parent.trace_id, parent.span_id, sampled=True, state="a=b,c=d")
    )
    assert read_parent([("traceparent", GOOD), ("traceparent", GOOD)]) is None
    assert read_parent([("traceparent", b"x")]) is None
    assert read_parent([]) is None
    long = read_parent([("traceparent", GOOD), ("tracestate", "a" * 600)])
    assert long is not None
    assert not long.state


@given(
    trace_id=IDS,
    name=st.sampled_from(
        [
            f"{prefix}{kind}"
            for prefix in ("", "parentbased_")
            for kind in ("always_on", "always_off", "traceidratio")
        ]
    ),
    share=st.floats(0, 1),
    parent=st.none() | st.booleans(),
)
def test_a_trace_is_recorded_when_the_sdk_would_record_it(
    trace_id: int, name: str, share: float, parent: bool | None
) -> None:
    theirs: sampling.Sampler = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(share),
    }[name.removeprefix("parentbased_")]
    if name.startswith("parentbased_"):
        theirs = sampling.ParentBased(theirs)
    ours = read_sampling(name, repr(share))
    assert ours is not None
    caller, context = None, None
    if parent is not None:
        caller = Parent(trace_id.to_bytes(16), b"12345678", sampled=parent)
        span = SpanContext(trace_id, 1, is_remote=True, trace_flags=TraceFlags(int(parent)))
        context = set_span_in_context(NonRecordingSpan(span))
    decision = theirs.should_sample(context, trace_id, "call").decision
    sampled = decision is sampling.Decision.RECORD_AND_SAMPLE
    assert ours.records(trace_id.to_bytes(16), caller) == sampled


def test_samplers_by_name() -> None:
    assert read_sampling("", "") == Sampling()
    assert read_sampling("traceidratio", "nonsense") == Sampling(parent_based=False)
    assert read_sampling("traceidratio", "7") == Sampling(parent_based=False)
    assert read_sampling("jaeger_remote", "") is None
