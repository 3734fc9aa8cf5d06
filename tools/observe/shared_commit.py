"""Finds a save whose commit was shared, in what arrived of the traces."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from statekeep_server.telemetry.names import COMMIT, STORE
from tools.observe.spans import Span


class Traces(Protocol):
    """What takes spans and gives them back."""

    @property
    def kind(self) -> str:
        """What it is, for people."""

    @property
    def endpoint(self) -> str:
        """Where spans are sent, by OTLP over gRPC."""

    @property
    def page(self) -> str:
        """Where people look."""

    def trace_ids(self) -> Iterable[str]:
        """The traces that arrived; only a receiver of ours knows them by itself."""

    def address(self, trace_id: str) -> str:
        """Where a trace is found."""

    async def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have arrived so far; none of an unknown one."""


@dataclass(frozen=True, slots=True)
class Trail:
    """One save from its first span down to its commit.

    Attributes:
        spans: The save's trace, with the commit below the store span that waited for it.
        commit: Among `spans`; its links are the saves in it.
        away: Whether the commit stands in the trace of another save, the first in it.
    """

    spans: tuple[Span, ...]
    commit: Span
    away: bool

    @property
    def saves(self) -> int:
        """How many traced saves the commit made durable."""
        return max(1, len(self.commit.links))

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """The better one to show: shared, with all its spans in one trace, with many."""
        return self.saves > 1, not self.away, self.saves


async def best_trail(traces: Traces, trace_ids: Iterable[str]) -> Trail | None:
    """The best trail to show, of those that have arrived from end to end."""
    trails = [await _trail(traces, await traces.trace(trace_id)) for trace_id in trace_ids]
    return max((trail for trail in trails if trail), key=lambda trail: trail.rank, default=None)


async def _trail(traces: Traces, spans: Sequence[Span]) -> Trail | None:
    if not _whole(spans):
        return None
    for span in spans:
        if span.name == COMMIT.name:
            return Trail(tuple(spans), span, away=False)
    for store in spans:
        if store.name != STORE.name:
            continue
        for trace_id, span_id in store.links:
            for span in await traces.trace(trace_id):
                if span.span_id == span_id and span.name == COMMIT.name:
                    commit = replace(span, parent_id=store.span_id)
                    return Trail((*spans, commit), commit, away=True)
    return None


def _whole(spans: Sequence[Span]) -> bool:
    """Whether no parent is missing: spans of several programs do not arrive together."""
    known = {span.span_id for span in spans}
    return all(not span.parent_id or span.parent_id in known for span in spans)
