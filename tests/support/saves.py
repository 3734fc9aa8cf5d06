"""Prepared saves and heads for tests of the domain, with a default for everything."""

import json
from typing import Any

from statekeep_server.domain.canonical import (
    DEFAULT_IGNORED_FIELDS,
    IgnoredFields,
    compile_ignored,
)
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import CheckpointType, Head, PreparedSave, RunKey, SaveCommand
from statekeep_server.domain.prepare import prepare

RUN = RunKey("default", "run-1")
DEFAULT_IGNORED = compile_ignored(DEFAULT_IGNORED_FIELDS)
NOW_US = 1_800_000_000_000_000


def command(state: Any = None, **options: Any) -> SaveCommand:
    """Make a command: an automatic checkpoint of `state`, bytes or anything that JSON can hold."""
    data = (
        state if isinstance(state, bytes) else json.dumps({} if state is None else state).encode()
    )
    defaults: dict[str, Any] = {
        "key": RUN,
        "checkpoint_type": CheckpointType.AUTO,
        "request_id": "request-1",
    }
    return SaveCommand(state=data, **(defaults | options))


def prepared(
    state: Any = None,
    *,
    ignored: IgnoredFields = DEFAULT_IGNORED,
    limits: Limits | None = None,
    **options: Any,
) -> PreparedSave:
    """Prepare a save, with the default list of ignored fields."""
    return prepare(command(state, **options), ignored=ignored, limits=limits or Limits())


def head_of(save: PreparedSave, **changes: Any) -> Head:
    """Make the head that a save of `save` at `NOW_US` leaves."""
    values: dict[str, Any] = {
        "key": save.command.key,
        "version": 1,
        "snapshot_id": "snapshot-1",
        "comparison_hash": save.comparison_hash,
        "state_sha256": save.state_sha256,
        "field_digests": save.field_digests,
        "audit_hash": bytes(32),
        "persisted_at_us": NOW_US,
        "expires_at_us": save.command.expires_at_us,
        "writer_sequence": save.command.writer_sequence,
    }
    return Head(**(values | changes))
