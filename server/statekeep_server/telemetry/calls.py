"""The calls of a server: their durations and the span of each."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from statekeep_server.telemetry import names
from statekeep_server.telemetry.buckets import Buckets
from statekeep_server.telemetry.context import Parent, read_parent
from statekeep_server.telemetry.measures import Reading
from statekeep_server.telemetry.spans import Span, Tracer

GRPC = "grpc"
Metadata = Iterable[tuple[str, str | bytes]]

SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that the semantic conventions count as errors of a server."""


class Calls:
    """Watches calls.

    Args:
        tracer: None where no spans are wanted.
        parent_of: Reads the caller's span out of the metadata.
    """

    def __init__(
        self,
        tracer: Tracer | None,
        monotonic_s: Callable[[], float],
        parent_of: Callable[[Metadata], Parent | None] = read_parent,
    ) -> None:
        self._tracer = tracer
        self._monotonic_s = monotonic_s
        self._parent_of = parent_of
        self._durations: dict[tuple[str, str], Buckets] = {}

    def begin(self, path: str, metadata: Metadata) -> "WatchedCall":
        """Begin a call of the method with this path; it is watched while its context is open."""
        method = path[1:]
        span = None
        if self._tracer is not None:
            span = self._tracer.begin_call(method, self._parent_of(metadata))
        return WatchedCall(self, method, span, self._monotonic_s())

    def ended(self, method: str, status: str, started_s: float) -> None:
        """Count a call."""
        duration_s = self._monotonic_s() - started_s
        durations = self._durations.get((method, status))
        if durations is None:
            # As many as methods times statuses, at most.
            durations = self._durations[method, status] = Buckets(names.DURATION_BOUNDS)
        durations.record(duration_s)

    def readings(self) -> list[Reading]:
        """Tell how long calls took."""
        return [
            Reading(
                names.CALL_DURATION,
                {
                    (GRPC, method, status, status if status in SERVER_FAULTS else ""): each.read()
                    for (method, status), each in self._durations.items()
                },
            )
        ]


class WatchedCall:
    """A call under way. Its status is OK unless somebody says otherwise."""

    __slots__ = ("_calls", "_method", "_span", "_started_s", "status")

    def __init__(self, calls: Calls, method: str, span: Span | None, started_s: float) -> None:
        self._calls = calls
        self._method = method
        self._span = span
        self._started_s = started_s
        self.status = "OK"

    def __enter__(self) -> Self:
        if self._span is not None:
            self._span.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.ended(self._method, self.status, self._started_s)
        span = self._span
        if span is None:
            return
        span.attributes = {
            names.RPC_SYSTEM: GRPC,
            names.RPC_METHOD: self._method,
            names.RPC_STATUS: self.status,
        }
        if self.status in SERVER_FAULTS:
            span.fail(self.status)
        span.__exit__(kind, error, traceback)
