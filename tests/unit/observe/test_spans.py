"""Spans are read from OTLP's JSON, drawn as a tree, and searched for a shared commit."""

import base64
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tools.observe.shared_commit import best_trail
from tools.observe.spans import Span, draw, read_spans

TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER = "1af7651916cd43dd8448eb211c80319c"


def span(name: str, number: int, parent: int = 0, **more: Any) -> Span:
    usual = Span(
        trace_id=TRACE,
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        service="statekeep",
        name=name,
        start_ns=number * 1_000_000,
        end_ns=number * 1_000_000 + 2_500_000,
        attributes={},
        links=(),
    )
    return replace(usual, **more)


def link(number: int, trace: str = TRACE) -> tuple[str, str]:
    return trace, f"{number:016x}"


class Arrived:
    """Traces that have arrived."""

    kind = endpoint = page = ""

    def __init__(self, *spans: Span) -> None:
        self._spans = spans

    def address(self, trace_id: str) -> str:
        return trace_id

    def trace_ids(self) -> Iterable[str]:
        return {span.trace_id for span in self._spans}

    async def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self._spans if span.trace_id == trace_id]


def in_base64(identifier: str) -> str:
    return base64.b64encode(bytes.fromhex(identifier)).decode()


@pytest.mark.parametrize("written", [str, in_base64], ids=["hex", "base64"])
def test_ids_are_read_in_hex_and_in_base64(written: Any) -> None:
    (found,) = read_spans(
        [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": "agent"}}]
                },
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": written(TRACE),
                                "spanId": written("00000000000000a1"),
                                "parentSpanId": written("00000000000000a0"),
                                "name": "agent.save",
                                "startTimeUnixNano": "1000000",
                                "endTimeUnixNano": "3500000",
                                "attributes": [
                                    {"key": "statekeep.version", "value": {"intValue": "7"}}
                                ],
                                "links": [
                                    {
                                        "traceId": written(OTHER),
                                        "spanId": written("00000000000000b1"),
                                    }
                                ],
                            }
                        ]
                    }
                ],
            }
        ]
    )
    assert found == span(
        "agent.save", 0xA1, 0xA0,
        service="agent", start_ns=1_000_000, end_ns=3_500_000,
        attributes={"statekeep.version": "7"}, links=(link(0xB1, OTHER),),
    )  # fmt: skip
    assert found.duration_ms == 2.5


def test_a_trace_is_drawn_from_its_first_span_down() -> None:
    spans = [
        span("statekeep.save", 3, 2, attributes={"statekeep.outcome": "PERSISTED", "x": "unsaid"}),
        span("second", 5, 1),
        span("agent.save", 1, service="agent"),
        span("call", 2, 1),
    ]
    lines = [line.split() for line in draw(spans, notes={spans[3].span_id: "<- here"})]
    assert lines == [
        ["2.50", "ms", "agent", "agent.save"],
        ["2.50", "ms", "statekeep", "call", "<-", "here"],
        ["2.50", "ms", "statekeep", "statekeep.save", "outcome=PERSISTED"],
        ["2.50", "ms", "statekeep", "second"],
    ]


async def test_a_commit_in_the_saves_own_trace_is_found() -> None:
    commit = span("statekeep.commit", 3, 2, links=(link(2), link(9, OTHER)))
    arrived = Arrived(span("call", 1), span("statekeep.store", 2, 1), commit)
    trail = await best_trail(arrived, [TRACE, OTHER])
    assert trail is not None
    assert (trail.commit, trail.saves, trail.away) == (commit, 2, False)


async def test_a_commit_in_another_saves_trace_is_found_by_its_link() -> None:
    commit = span("statekeep.commit", 8, trace_id=OTHER, links=(link(7, OTHER), link(2)))
    store = span("statekeep.store", 2, 1, links=(link(5, OTHER), link(8, OTHER)))
    arrived = Arrived(span("call", 1), span("statekeep.wait", 4, 1), store, commit)
    trail = await best_trail(arrived, [TRACE])
    assert trail is not None
    assert (trail.saves, trail.away) == (2, True)
    assert trail.commit.parent_id == store.span_id
    assert trail.commit in trail.spans


async def test_a_shared_commit_is_better_than_a_lone_one() -> None:
    lone = span("statekeep.commit", 3, trace_id=OTHER, links=(link(2),))
    shared = span("statekeep.commit", 4, links=(link(2), link(3)))
    trail = await best_trail(Arrived(lone, shared), [OTHER, TRACE])
    assert trail is not None
    assert trail.commit == shared


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [span("statekeep.commit", 3, 2)],  # its parent is still under way
        [span("call", 1), span("statekeep.store", 2, 1, links=(link(8, OTHER),))],
        [span("call", 1)],
    ],
    ids=["nothing", "a part", "a commit under way", "no commit"],
)
async def test_what_has_not_arrived_is_waited_for(spans: list[Span]) -> None:
    assert await best_trail(Arrived(*spans), [TRACE]) is None
