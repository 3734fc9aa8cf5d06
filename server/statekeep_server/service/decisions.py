"""The debug mode: what was decided about each save and why, and never the state itself.

    Decided: outcome=SKIPPED reason=UNCHANGED path=OPTIMIZED run_id='run-1' version=7 …

With LOG_LEVEL=DEBUG each save has a line for its route, where it has a choice, and one for what
became of it. Otherwise it pays one question to the logger for each.
"""

import logging

from statekeep_server.domain.model import Path, PreparedSave, SaveCommand
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.counters import reason_of
from statekeep_server.service.ports import CachedHead

LOGGER = logging.getLogger("statekeep.decisions")

MAX_NAMES = 20
"""Names of changed fields in a line; their number is told as well."""

MAX_NAME_CHARACTERS = 64
"""A state may use what is data as a name."""


def wanted() -> bool:
    """Whether anybody reads these lines."""
    return LOGGER.isEnabledFor(logging.DEBUG)


def routed(
    save: PreparedSave, cached: CachedHead | None, *, free: bool, queued: int, answered: bool
) -> None:
    """Tell which way a save took through the optimized path, and why.

    Args:
        save: The save, before it is answered.
        cached: What the head cache knew, where it was asked.
        free: Whether the save might be skipped at all.
        queued: Saves of the run that were waiting for a commit.
        answered: Whether the barrier had the answer.
    """
    command = save.command
    if answered:
        why = "BARRIER_ANSWERS"
    elif not free:
        why = "NO_CHOICE"
    elif queued:
        why = "QUEUED_BEHIND"
    elif cached is not None and cached.comparison_hash != save.comparison_hash:
        why = "CACHE_DIFFERS"
    else:
        why = "BARRIER_PERSISTS"
    LOGGER.debug(
        "Routed: run_id=%r request_id=%r route=%s why=%s cached_version=%s queued=%d",
        command.key.run_id,
        command.request_id,
        "barrier" if answered else "lock",
        why,
        None if cached is None else cached.version,
        queued,
    )


def decided(command: SaveCommand, ack: SaveAck, duration_s: float) -> None:
    """Tell of a save that was acknowledged."""
    result, cause = ack.result, ack.fallback_cause
    names = [name[:MAX_NAME_CHARACTERS] for name in result.changed_fields[:MAX_NAMES]]
    LOGGER.debug(
        "Decided: outcome=%s reason=%s path=%s run_id=%r request_id=%r version=%d snapshot_id=%s "
        "checkpoint_type=%r attempt=%d replayed=%s state_bytes=%d state_sha256=%s "
        "comparison_hash=%s fields_changed=%d changed=%r fallback=%s duration_ms=%.2f",
        result.outcome,
        result.reason,
        ack.path,
        command.key.run_id,
        result.request_id,
        result.version,
        result.snapshot_id,
        command.checkpoint_type,
        command.attempt,
        result.replayed,
        len(command.state),
        result.state_sha256.hex(),
        result.comparison_hash.hex(),
        len(result.changed_fields),
        ",".join(names),
        None if cause is None else cause.reason,
        duration_s * 1_000,
    )


def refused(path: Path, command: SaveCommand, error: BaseException, duration_s: float) -> None:
    """Tell of a save that was not acknowledged; `path` is the one that its flags chose."""
    LOGGER.debug(
        "Not saved: reason=%s path=%s run_id=%r request_id=%r checkpoint_type=%r state_bytes=%d "
        "duration_ms=%.2f",
        reason_of(error),
        path,
        command.key.run_id,
        command.request_id,
        command.checkpoint_type,
        len(command.state),
        duration_s * 1_000,
    )
