"""What monitoring says of each save, as a line of text or as JSON.

Persistence metrics: optimized_save run_id=run_123 duration=15.30ms success=true fields_changed=3
"""

import json
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from statekeep_server.telemetry.plain import value

LOGGER = logging.getLogger("statekeep.monitoring")

OPTIMIZED_SAVE = "optimized_save"
SKIPPED_SAVE = "skipped_save"
BUFFERED_SAVE = "buffered_save"
STANDARD_SAVE = "standard_save"


class SaveEvent(NamedTuple):
    """One save. A tuple, because making one is all that a save pays for its monitoring.

    Attributes:
        at_us: When it ended, by this machine's clock.
        operation: `optimized_save`, `skipped_save` or `standard_save`.
        run_id: As the caller wrote it: it may hold anything.
        fields_changed: Top-level fields that differ from the head before; None for a failure.
        fallback: Why the optimized path did not serve it; empty if it did, or was not to.
        error: The reason of a failure; empty for an acknowledged save.
    """

    at_us: int
    operation: str
    run_id: str
    duration_s: float
    fields_changed: int | None
    fallback: str
    error: str


SaveLines = Callable[[Sequence[SaveEvent]], None]
"""Writes the lines of some events, in a thread of its own. Raises OSError where it cannot."""


def text_of(event: SaveEvent) -> str:
    """Write an event as `name=value` pairs."""
    success = "false" if event.error else "true"
    line = (
        f"Persistence metrics: {event.operation} run_id={value(event.run_id)} "
        f"duration={event.duration_s * 1_000:.2f}ms success={success}"
    )
    if event.fields_changed is not None:
        line += f" fields_changed={event.fields_changed}"
    if event.fallback:
        line += f" fallback={event.fallback}"
    return f"{line} error={event.error}" if event.error else line


def json_of(event: SaveEvent) -> str:
    """Write the members of a JSON object, without its braces."""
    members: dict[str, object] = {
        "message": f"Persistence metrics: {event.operation}",
        "operation": event.operation,
        "run_id": event.run_id,
        "duration_ms": round(event.duration_s * 1_000, 3),
        "success": not event.error,
    }
    if event.fields_changed is not None:
        members["fields_changed"] = event.fields_changed
    if event.fallback:
        members["fallback"] = event.fallback
    if event.error:
        members["error"] = event.error
    return json.dumps(members)[1:-1]


def log_saves(events: Sequence[SaveEvent]) -> None:
    """Write events through the log of the process, whoever configured it."""
    for event in events:
        LOGGER.info("%s", text_of(event))
