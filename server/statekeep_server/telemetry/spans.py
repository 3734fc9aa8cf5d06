"""Spans of the calls that are recorded, carried by the task that serves the call.

Where nothing is recorded, which is nearly always, a span costs a look at a context variable. What
is recorded is written into bytes when it ends (`wire`), on the event loop: a thread that did so
would hold the interpreter's lock for as long, and in longer pieces.
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from statekeep_server.telemetry import instruments, names, wire
from statekeep_server.telemetry.context import (
    Parent,
    Sampling,
    new_span_id,
    new_trace_id,
)

INTERNAL, SERVER, CLIENT = 1, 2, 3


class Tracer:
    """Begins the spans of calls and takes the spans that ended.

    Args:
        put: Takes a written span; it must not block.
        now_us: Tells the time.
    """

    __slots__ = ("_sampling", "now_us", "put")

    def __init__(
        self, sampling: Sampling, put: Callable[[bytes], None], now_us: Callable[[], int]
    ) -> None:
        self._sampling = sampling
        self.put = put
        self.now_us = now_us

    def begin_call(self, name: str, parent: Parent | None) -> "Span | None":
        """Begin the span of a call, for the running task; None where it is not recorded."""
        trace_id = new_trace_id() if parent is None else parent.trace_id
        if not self._sampling.records(trace_id, parent):
            if parent is not None:
                _caller.set(parent)
            return None
        span = Span(self, name, SERVER, trace_id)
        if parent is not None:
            span.parent_id, span.trace_state, span.remote_parent = (
                parent.span_id,
                parent.state,
                True,
            )
        return span


class Span:
    """A span that is recorded. As a context it is the current one; leaving it ends it."""

    __slots__ = (
        "_extras",
        "_started_us",
        "_token",
        "_tracer",
        "attributes",
        "failed",
        "kind",
        "name",
        "parent_id",
        "remote_parent",
        "span_id",
        "trace_id",
        "trace_state",
    )

    def __init__(self, tracer: Tracer, name: str, kind: int, trace_id: bytes) -> None:
        self._tracer = tracer
        self.name = name
        self.kind = kind
        self.trace_id = trace_id
        self.span_id = new_span_id()
        self.parent_id: bytes | None = None
        self.remote_parent = False
        self.trace_state = ""
        self.attributes: dict[str, wire.Value] = {}
        self.failed = False
        self._extras: list[bytes] = []
        self._token: Token[Span | None] | None = None
        self._started_us = tracer.now_us()

    def now_us(self) -> int:
        """Tell the time as the span does."""
        return self._tracer.now_us()

    def child(self, name: str, kind: int) -> "Span":
        """Begin a span under this one."""
        span = Span(self._tracer, name, kind, self.trace_id)
        span.parent_id = self.span_id
        span.trace_state = self.trace_state
        return span

    def event(self, event: instruments.Event, *values: wire.Value) -> None:
        """Say that something happened; the values are those of the event's attributes."""
        described = dict(zip(event.attributes, values, strict=True))
        self._extras.append(wire.event(event.name, self._tracer.now_us(), described))

    def link(self, other: "Span") -> None:
        """Link this span to another one."""
        self._extras.append(wire.link(other.trace_id, other.span_id))

    def fail(self, error_type: str) -> None:
        """Say that what the span stands for failed."""
        self.failed = True
        self.attributes[names.ERROR_TYPE] = error_type

    def end(self) -> None:
        """Write the span down."""
        self._tracer.put(
            wire.span(
                trace_id=self.trace_id,
                span_id=self.span_id,
                parent_id=self.parent_id,
                remote_parent=self.remote_parent,
                trace_state=self.trace_state,
                name=self.name,
                kind=self.kind,
                started_us=self._started_us,
                ended_us=max(self._started_us, self._tracer.now_us()),  # a clock may go back
                attributes=self.attributes,
                events_and_links=self._extras,
                failed=self.failed,
            )
        )

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        self.end()


class _Nothing:
    """Stands for a span where none is recorded."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


NOTHING = _Nothing()

_current: ContextVar[Span | None] = ContextVar("statekeep_span", default=None)
_caller: ContextVar[Parent | None] = ContextVar("statekeep_caller", default=None)


current: Callable[[], Span | None] = _current.get
"""The span of what the running task does; None where nothing is recorded."""


def waiting(span: instruments.Span) -> Span | None:
    """Begin a span that is ended by whoever is waited for; None where nothing is recorded."""
    parent = _current.get()
    return None if parent is None else parent.child(span.name, INTERNAL)


def shared(span: instruments.Span, waits: Iterable[Span | None]) -> Span | _Nothing:
    """Begin the span of work that many wait for: under the first, linked with all of them."""
    traced = [wait for wait in waits if wait is not None]
    if not traced:
        return NOTHING
    work = traced[0].child(span.name, CLIENT)
    for wait in traced:
        work.link(wait)
        wait.link(work)
    return work


def remember_caller(parent: Parent | None) -> None:
    """Let `current_ids` name this span where none is recorded."""
    _caller.set(parent)


def current_ids() -> tuple[str, str] | None:
    """The trace id and span id that a log line of the running task should carry, as hex.

    Those of the caller's span where the call is not recorded here; None outside of any trace.
    """
    span = _current.get()
    if span is not None:
        return span.trace_id.hex(), span.span_id.hex()
    caller = _caller.get()
    return None if caller is None else (caller.trace_id.hex(), caller.span_id.hex())
