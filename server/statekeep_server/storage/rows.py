"""Rows of the tables, made of values of the domain and turned back into them."""

import json
from typing import Any

import orjson
from sqlalchemy import ColumnElement, FromClause, RowMapping, Table, and_

from statekeep_server.domain.audit import AuditRecord
from statekeep_server.domain.model import (
    JSON_CONTENT_TYPE,
    Head,
    Outcome,
    Reason,
    RunKey,
    SaveResult,
    Snapshot,
)
from statekeep_server.domain.transition import RecordedResult
from statekeep_server.storage.frames import IDENTITY, Frame, StoredFrame
from statekeep_server.storage.loading import minute_of
from statekeep_server.storage.tables import (
    audit_records,
    heads,
    request_results,
    snapshots,
)

Row = dict[str, object]

KEY = ("tenant", "run_id")

_HEAD = (
    "version",
    "snapshot_id",
    "comparison_hash",
    "state_sha256",
    "field_digests",
    "audit_hash",
    "persisted_at_us",
    "expires_at_us",
    "writer_sequence",
)
_READ_HEAD = tuple(name for name in _HEAD if name != "snapshot_id")
# A snapshot is what its own row says of it, and what its audit record says.
_SNAPSHOT = ("version", "agent_phase", "expires_at_us", "state_bytes")
_DESCRIPTION = (
    "thread_id",
    "user_id",
    "checkpoint_type",
    "is_recovery_point",
    "state_sha256",
    "comparison_hash",
)
_AUDIT = ("version", *_DESCRIPTION, "request_id", "recorded_at_us", "hash")
# Likewise what a request id remembers.
_RECORDED = ("state_sha256", "comparison_hash")


def _columns(table: Table, *names: str) -> tuple[ColumnElement[Any], ...]:
    """Name columns by their table too, so that a join of tables keeps them apart."""
    return _labelled(table, table, *names)


def _labelled(source: FromClause, table: Table, *names: str) -> tuple[ColumnElement[Any], ...]:
    return tuple(source.c[name].label(f"{table.name}_{name}") for name in names)


def _snapshot_id(value: object) -> str | None:
    """Read an id; the driver itself has a type of its own for it."""
    return None if value is None else str(value)


def key_row(key: RunKey) -> Row:
    """Make the columns of a key."""
    return {"tenant": key.tenant, "run_id": key.run_id}


# Heads.

HEAD_COLUMNS = _columns(heads, *_HEAD)


def head_row(head: Head) -> Row:
    """Make the columns of a head, those for the list of runs aside."""
    return {
        "tenant": head.key.tenant,
        "run_id": head.key.run_id,
        "version": head.version,
        "snapshot_id": head.snapshot_id,
        "comparison_hash": head.comparison_hash,
        "state_sha256": head.state_sha256,
        "field_digests": head.field_digests,
        "audit_hash": head.audit_hash,
        "persisted_at_us": head.persisted_at_us,
        "expires_at_us": head.expires_at_us,
        "writer_sequence": head.writer_sequence,
        "active_minute": minute_of(head.persisted_at_us),
    }


def new_head_row(key: RunKey) -> Row:
    """Make the row that a run has until its first write, in the same transaction."""
    return {
        **key_row(key),
        **dict.fromkeys(_HEAD),
        "version": 0,
        "field_digests": b"",
        "audit_hash": b"",
        "persisted_at_us": 0,
        "active_minute": 0,
        "thread_id": "",
        "user_id": "",
        "deleted": False,
    }


def read_head(key: RunKey, row: RowMapping) -> Head | None:
    """Make a head of `HEAD_COLUMNS`; None where a join found none, or it was never written."""
    if not row["heads_version"]:
        return None
    return Head(
        key=key,
        snapshot_id=_snapshot_id(row["heads_snapshot_id"]),
        **{name: row[f"heads_{name}"] for name in _READ_HEAD},
    )


# Snapshots.


def frame_columns(source: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Name what a frame is read from; `source` has the columns of the snapshots."""
    names = ("version", "state_bytes", "encoding", "base_version", "state")
    return _labelled(source, snapshots, *names)


FRAME_COLUMNS = frame_columns(snapshots)

DESCRIBED = and_(
    audit_records.c.tenant == snapshots.c.tenant,
    audit_records.c.run_id == snapshots.c.run_id,
    audit_records.c.version == snapshots.c.version,
)
"""Whether an audit record is that of a snapshot."""


def description_columns(audit: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Name what describes a snapshot beside `FRAME_COLUMNS`; `audit` is its audit record."""
    return (
        *_columns(snapshots, "agent_phase", "expires_at_us", "content_type", "execution_context"),
        *_labelled(audit, audit_records, "snapshot_id", *_DESCRIPTION, "recorded_at_us"),
    )


def snapshot_columns(audit: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Name all that is said of a snapshot; `audit` is its audit record."""
    return (*_columns(snapshots, "version", "state_bytes"), *description_columns(audit))


def snapshot_row(snapshot: Snapshot, frame: Frame | None = None) -> Row:
    """Make the row of a snapshot; without a frame the payload is stored as it came."""
    if frame is None:
        frame = Frame(IDENTITY, snapshot.state or b"")
    is_json = snapshot.content_type == JSON_CONTENT_TYPE
    context = snapshot.execution_context
    return {
        "tenant": snapshot.key.tenant,
        "run_id": snapshot.key.run_id,
        "version": snapshot.version,
        "agent_phase": snapshot.agent_phase,
        "expires_at_us": snapshot.expires_at_us,
        "state_bytes": snapshot.state_bytes,
        "content_type": None if is_json else snapshot.content_type,
        "execution_context": _to_json(dict(context)) if context else "{}",
        "encoding": frame.encoding,
        "base_version": frame.base_version,
        "depth": frame.depth,
        "state": frame.data,
    }


def read_frame(row: RowMapping) -> StoredFrame:
    """Make a frame of `FRAME_COLUMNS`."""
    return StoredFrame(
        row["snapshots_version"],
        row["snapshots_state_bytes"],
        row["snapshots_encoding"],
        row["snapshots_base_version"],
        row["snapshots_state"],
    )


def read_snapshot(key: RunKey, row: RowMapping, state: bytes | None = None) -> Snapshot:
    """Make a snapshot of `snapshot_columns`."""
    return Snapshot(
        key=key,
        snapshot_id=str(row["audit_records_snapshot_id"]),
        **{name: row[f"snapshots_{name}"] for name in _SNAPSHOT},
        **{name: row[f"audit_records_{name}"] for name in _DESCRIPTION},
        content_type=row["snapshots_content_type"] or JSON_CONTENT_TYPE,
        execution_context=tuple(json.loads(row["snapshots_execution_context"]).items()),
        persisted_at_us=row["audit_records_recorded_at_us"],
        state=state,
    )


# Audit records.

AUDIT_COLUMNS = _columns(audit_records, "snapshot_id", *_AUDIT)


def audit_row(record: AuditRecord) -> Row:
    """Make the row of an audit record."""
    return {
        "tenant": record.key.tenant,
        "run_id": record.key.run_id,
        "snapshot_id": record.snapshot_id,
        "version": record.version,
        "thread_id": record.thread_id,
        "user_id": record.user_id,
        "checkpoint_type": record.checkpoint_type,
        "is_recovery_point": record.is_recovery_point,
        "state_sha256": record.state_sha256,
        "comparison_hash": record.comparison_hash,
        "request_id": record.request_id,
        "recorded_at_us": record.recorded_at_us,
        "hash": record.hash,
    }


def read_audit(key: RunKey, row: RowMapping) -> AuditRecord:
    """Make an audit record of `AUDIT_COLUMNS`."""
    snapshot_id = _snapshot_id(row["audit_records_snapshot_id"])
    return AuditRecord(
        key=key,
        kind="DELETE" if snapshot_id is None else "SAVE",
        snapshot_id=snapshot_id,
        **{name: row[f"audit_records_{name}"] for name in _AUDIT},
    )


# Results of requests.

RESULT_COLUMNS = (
    *_columns(
        request_results,
        "request_id",
        "version",
        "reason",
        "fingerprint",
        "changed_fields",
        "changed_fields_truncated",
    ),
    *_columns(audit_records, "snapshot_id", *_RECORDED),
)
"""Of a join with the audit record of the version: `RESULT_DESCRIBED`."""

RESULT_DESCRIBED = and_(
    audit_records.c.tenant == request_results.c.tenant,
    audit_records.c.run_id == request_results.c.run_id,
    audit_records.c.version == request_results.c.version,
)


def result_row(key: RunKey, recorded: RecordedResult, recorded_at_us: int) -> Row:
    """Make the row of what a request id remembers."""
    result = recorded.result
    return {
        **key_row(key),
        "request_id": result.request_id,
        "version": result.version,
        "reason": result.reason.value,
        "fingerprint": recorded.fingerprint,
        "changed_fields": _to_json(result.changed_fields),
        "changed_fields_truncated": result.changed_fields_truncated,
        "recorded_minute": minute_of(recorded_at_us),
    }


def read_result(row: RowMapping) -> RecordedResult | None:
    """Make a recorded result of `RESULT_COLUMNS`; None where a join found none."""
    if row["request_results_fingerprint"] is None:
        return None
    reason = Reason(row["request_results_reason"])
    result = SaveResult(
        outcome=Outcome.SKIPPED if reason is Reason.UNCHANGED else Outcome.PERSISTED,
        reason=reason,
        snapshot_id=str(row["audit_records_snapshot_id"]),
        version=row["request_results_version"],
        **{name: row[f"audit_records_{name}"] for name in _RECORDED},
        changed_fields=tuple(json.loads(row["request_results_changed_fields"])),
        changed_fields_truncated=row["request_results_changed_fields_truncated"],
        request_id=row["request_results_request_id"],
    )
    return RecordedResult(result, row["request_results_fingerprint"])


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()
