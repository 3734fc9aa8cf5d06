"""What a store does for its callers: the duration of each operation, and its span."""

from collections.abc import Callable
from types import TracebackType

from statekeep_server.domain.errors import StateError
from statekeep_server.telemetry import names
from statekeep_server.telemetry.buckets import Buckets
from statekeep_server.telemetry.measures import Reading
from statekeep_server.telemetry.spans import CLIENT, Span, current


class Operations:
    """Watches the operations of one store.

    Args:
        system: Of the database, by the semantic conventions: `postgresql` or `sqlite`.
        path: That the store serves.
    """

    def __init__(self, system: str, path: str, monotonic_s: Callable[[], float]) -> None:
        self.system = system
        self._path = path
        self.monotonic_s = monotonic_s
        self._durations: dict[tuple[str, str], Buckets] = {}

    def begin(self, operation: str, items: int = 1) -> "Operation":
        """Begin an operation on so many items; it is watched while its context is open."""
        return Operation(self, operation, items)

    def ended(self, operation: str, error_type: str, duration_s: float) -> None:
        """Count an operation."""
        durations = self._durations.get((operation, error_type))
        if durations is None:
            # As many as methods of the store times reasons, at most.
            durations = self._durations[operation, error_type] = Buckets(names.DURATION_BOUNDS)
        durations.record(duration_s)

    def readings(self) -> list[Reading]:
        """Tell how long operations took."""
        return [
            Reading(
                names.DB_DURATION,
                {
                    (self.system, operation, self._path, error_type): each.read()
                    for (operation, error_type), each in self._durations.items()
                },
            )
        ]


class Operation:
    """An operation under way."""

    __slots__ = ("_entered", "_items", "_name", "_operations", "_span", "_started_s")

    def __init__(self, operations: Operations, name: str, items: int) -> None:
        self._operations = operations
        self._name = name
        self._items = items
        self._span: Span | None = None
        self._entered = False
        self._started_s = operations.monotonic_s()

    def __enter__(self) -> None:
        span = current()
        if span is None:
            return
        if span.kind != CLIENT:  # a shared span is that of its one operation already
            span = span.child(names.STORE.name, CLIENT)
            span.__enter__()
            self._entered = True
        span.attributes[names.DB_SYSTEM] = self._operations.system
        span.attributes[names.DB_OPERATION] = self._name
        if self._items > 1:
            span.attributes[names.DB_BATCH_SIZE] = self._items
        self._span = span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        error_type = "" if error is None else error_type_of(error)
        duration_s = self._operations.monotonic_s() - self._started_s
        self._operations.ended(self._name, error_type, duration_s)
        if self._span is not None:
            if error_type:
                self._span.fail(error_type)
            if self._entered:
                self._span.__exit__(kind, error, traceback)


def error_type_of(error: BaseException) -> str:
    """Name an error in a label: by its reason, or by its class."""
    return error.reason if isinstance(error, StateError) else type(error).__name__
