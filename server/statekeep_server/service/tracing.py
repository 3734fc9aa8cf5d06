"""The spans of saves and loads on their path, where a call is traced; else nobody comes here."""

from collections.abc import Awaitable, Sequence

from statekeep_server.domain.errors import Refused
from statekeep_server.domain.model import LoadedState, Path, PreparedSave, RunKey
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.counters import reason_of
from statekeep_server.telemetry import names
from statekeep_server.telemetry.spans import INTERNAL, Span


async def traced_save(parent: Span, save: PreparedSave, serving: Awaitable[SaveAck]) -> SaveAck:
    """Serve a save within a span."""
    command = save.command
    with parent.child(names.SAVE.name, INTERNAL) as span:
        span.attributes |= {
            names.RUN_ID: command.key.run_id,
            names.CHECKPOINT_TYPE: command.checkpoint_type,
            names.STATE_SIZE: len(command.state),
        }
        if command.attempt > 1:
            span.event(names.RETRY, command.attempt)
        try:
            ack = await serving
        except Exception as error:
            _failed(span, error)
            raise
        result = ack.result
        span.attributes |= {
            names.PATH: ack.path,
            names.OUTCOME: result.outcome,
            names.REASON: result.reason,
            names.VERSION: result.version,
            names.CHANGED_FIELDS: len(result.changed_fields),
        }
        span.event(names.DECISION, result.outcome, result.reason)
        return ack


async def traced_batch(
    parent: Span, saves: int, serving: Awaitable[Sequence[SaveAck | Exception]]
) -> Sequence[SaveAck | Exception]:
    """Serve the saves of a batch within a span."""
    with parent.child(names.SAVE_MANY.name, INTERNAL) as span:
        span.attributes[names.SAVES] = saves
        try:
            return await serving
        except Exception as error:
            _failed(span, error)
            raise


async def traced_load(
    parent: Span, path: Path, key: RunKey, serving: Awaitable[LoadedState]
) -> LoadedState:
    """Serve a load within a span."""
    with parent.child(names.LOAD.name, INTERNAL) as span:
        span.attributes |= {names.RUN_ID: key.run_id, names.PATH: path}
        try:
            loaded = await serving
        except Exception as error:
            _failed(span, error)
            raise
        span.attributes[names.VERSION] = loaded.snapshot.version
        span.attributes[names.STATE_SIZE] = loaded.snapshot.state_bytes
        return loaded


def _failed(span: Span, error: Exception) -> None:
    """Say why; only what is not the caller's fault makes the span one that failed."""
    span.event(names.FAILURE, reason_of(error))
    if not isinstance(error, Refused):
        span.fail(reason_of(error))
