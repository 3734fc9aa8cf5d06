"""Rows of the tables, made of values of the domain and turned back into them."""

import json
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, RowMapping, Table

from statekeep_server.domain.audit import AuditRecord
from statekeep_server.domain.model import Head, Outcome, Reason, RunKey, SaveResult, Snapshot
from statekeep_server.domain.transition import RecordedResult
from statekeep_server.storage.frames import IDENTITY, Frame, StoredFrame
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
_SNAPSHOT = (
    "snapshot_id",
    "version",
    "thread_id",
    "user_id",
    "checkpoint_type",
    "agent_phase",
    "is_recovery_point",
    "persisted_at_us",
    "expires_at_us",
    "content_type",
    "state_bytes",
    "state_sha256",
    "comparison_hash",
)
_AUDIT = (
    "version",
    "kind",
    "snapshot_id",
    "state_sha256",
    "comparison_hash",
    "checkpoint_type",
    "thread_id",
    "user_id",
    "is_recovery_point",
    "request_id",
    "recorded_at_us",
    "previous_hash",
    "hash",
)
_RESULT = ("snapshot_id", "version", "state_sha256", "comparison_hash")


def _columns(table: Table, names: Sequence[str]) -> tuple[ColumnElement[Any], ...]:
    """Name columns by their table too, so that a join of tables keeps them apart."""
    return tuple(table.c[name].label(f"{table.name}_{name}") for name in names)


def key_row(key: RunKey) -> Row:
    """Make the columns of a key."""
    return {"tenant": key.tenant, "run_id": key.run_id}


# Heads.

HEAD_COLUMNS = _columns(heads, _HEAD)


def head_row(head: Head) -> Row:
    """Make the columns of a head, those for the list of runs aside."""
    return {**key_row(head.key), **{name: getattr(head, name) for name in _HEAD}}


def new_head_row(key: RunKey) -> Row:
    """Make the row that a run has until its first write, in the same transaction."""
    return {
        **key_row(key),
        **dict.fromkeys(_HEAD),
        "version": 0,
        "field_digests": b"",
        "audit_hash": b"",
        "persisted_at_us": 0,
        "thread_id": "",
        "user_id": "",
        "deleted": False,
    }


def read_head(key: RunKey, row: RowMapping) -> Head | None:
    """Make a head of `HEAD_COLUMNS`; None where a join found none, or it was never written."""
    if not row["heads_version"]:
        return None
    return Head(key=key, **{name: row[f"heads_{name}"] for name in _HEAD})


# Snapshots.

SNAPSHOT_COLUMNS = (*_columns(snapshots, _SNAPSHOT), snapshots.c.execution_context)


FRAME_COLUMNS = _columns(
    snapshots,
    ("encoding", "base_version", "base_sha256", "depth", "state"),
)


def snapshot_row(snapshot: Snapshot, frame: Frame | None = None) -> Row:
    """Make the row of a snapshot; without a frame the payload is stored as it came."""
    if frame is None:
        frame = Frame(IDENTITY, snapshot.state or b"")
    return {
        **key_row(snapshot.key),
        **{name: getattr(snapshot, name) for name in _SNAPSHOT},
        "execution_context": _to_json(dict(snapshot.execution_context)),
        "encoding": frame.encoding,
        "base_version": frame.base_version,
        "base_sha256": frame.base_sha256,
        "depth": frame.depth,
        "state": frame.data,
    }


def read_frame(row: RowMapping) -> StoredFrame:
    """Make a frame of `FRAME_COLUMNS` and `SNAPSHOT_COLUMNS`."""
    return StoredFrame(
        Frame(
            encoding=row["snapshots_encoding"],
            data=row["snapshots_state"],
            base_version=row["snapshots_base_version"],
            base_sha256=row["snapshots_base_sha256"],
            depth=row["snapshots_depth"],
        ),
        version=row["snapshots_version"],
        state_bytes=row["snapshots_state_bytes"],
        state_sha256=row["snapshots_state_sha256"],
    )


def read_snapshot(key: RunKey, row: RowMapping, state: bytes | None = None) -> Snapshot:
    """Make a snapshot of `SNAPSHOT_COLUMNS`."""
    return Snapshot(
        key=key,
        **{name: row[f"snapshots_{name}"] for name in _SNAPSHOT},
        execution_context=tuple(json.loads(row["execution_context"]).items()),
        state=state,
    )


# Audit records.

AUDIT_COLUMNS = _columns(audit_records, _AUDIT)


def audit_row(record: AuditRecord) -> Row:
    """Make the row of an audit record."""
    return {**key_row(record.key), **{name: getattr(record, name) for name in _AUDIT}}


def read_audit(key: RunKey, row: RowMapping) -> AuditRecord:
    """Make an audit record of `AUDIT_COLUMNS`."""
    return AuditRecord(key=key, **{name: row[f"audit_records_{name}"] for name in _AUDIT})


# Results of requests.

RESULT_COLUMNS = _columns(
    request_results,
    (
        "request_id",
        "fingerprint",
        "outcome",
        "reason",
        *_RESULT,
        "changed_fields",
        "changed_fields_truncated",
    ),
)


def result_row(key: RunKey, recorded: RecordedResult, recorded_at_us: int) -> Row:
    """Make the row of what a request id remembers."""
    result = recorded.result
    return {
        **key_row(key),
        **{name: getattr(result, name) for name in _RESULT},
        "request_id": result.request_id,
        "fingerprint": recorded.fingerprint,
        "outcome": result.outcome.value,
        "reason": result.reason.value,
        "changed_fields": _to_json(result.changed_fields),
        "changed_fields_truncated": result.changed_fields_truncated,
        "recorded_at_us": recorded_at_us,
    }


def read_result(row: RowMapping) -> RecordedResult | None:
    """Make a recorded result of `RESULT_COLUMNS`; None where a join found none."""
    if row["request_results_fingerprint"] is None:
        return None
    result = SaveResult(
        outcome=Outcome(row["request_results_outcome"]),
        reason=Reason(row["request_results_reason"]),
        **{name: row[f"request_results_{name}"] for name in _RESULT},
        changed_fields=tuple(json.loads(row["request_results_changed_fields"])),
        changed_fields_truncated=row["request_results_changed_fields_truncated"],
        request_id=row["request_results_request_id"],
    )
    return RecordedResult(result, row["request_results_fingerprint"])


def _to_json(value: object) -> str:
    return orjson.dumps(value).decode()
