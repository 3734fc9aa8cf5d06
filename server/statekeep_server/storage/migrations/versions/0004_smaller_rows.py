"""Smaller rows: ids in 16 bytes, what describes a version said once, indexes of minutes.

The tables are written anew, each in one statement, so that rows from before get smaller too. It
takes as much free space on the disk as the tables have, and nobody writes meanwhile.
"""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MINUTE_US = 60_000_000

INDEXES = {
    "heads": ("heads_by_time", "heads_by_thread", "heads_by_user"),
    "snapshots": ("snapshots_by_expiry",),
    "audit_records": (),
    "request_results": ("request_results_by_time",),
}

UNIQUE = {"snapshots": ("snapshots_pkey", "snapshots_by_id")}


def upgrade() -> None:
    """Move every table aside, create it anew, and copy its rows."""
    for table in INDEXES:
        _move_aside(table)
    _create_heads()
    _create_snapshots()
    _create_audit_records()
    _create_request_results()
    _copy_rows()
    for table in INDEXES:
        op.drop_table(f"{table}_before")
    _create_indexes()


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _move_aside(table: str) -> None:
    """Free the names of a table and all its indexes."""
    for index in INDEXES[table]:
        op.drop_index(index, table)
    if _is_postgresql():
        for constraint in UNIQUE.get(table, (f"{table}_pkey",)):
            op.drop_constraint(constraint, table)
    op.rename_table(table, f"{table}_before")


def _text_key(name: str) -> sa.Column[str]:
    by_code_point = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, by_code_point, nullable=False)


def _snapshot_id() -> sa.Column[Any]:
    packed = sa.LargeBinary().with_variant(sa.Uuid(), "postgresql")
    return sa.Column("snapshot_id", packed)


def _create_heads() -> None:
    op.create_table(
        "heads",
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("persisted_at_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("writer_sequence", sa.BigInteger),
        sa.Column("active_minute", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        _snapshot_id(),
        _text_key("tenant"),
        _text_key("run_id"),
        _text_key("thread_id"),
        _text_key("user_id"),
        sa.Column("comparison_hash", sa.LargeBinary),
        sa.Column("state_sha256", sa.LargeBinary),
        sa.Column("audit_hash", sa.LargeBinary, nullable=False),
        sa.Column("field_digests", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", name="heads_pkey"),
    )
    if _is_postgresql():
        # A save then finds room in the page of its head, and touches no index.
        op.execute("ALTER TABLE heads SET (fillfactor = 50)")


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("base_version", sa.BigInteger),
        sa.Column("state_bytes", sa.Integer, nullable=False),
        sa.Column("depth", sa.SmallInteger, nullable=False),
        _text_key("tenant"),
        _text_key("run_id"),
        sa.Column("agent_phase", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text),
        sa.Column("execution_context", sa.Text, nullable=False),
        sa.Column("encoding", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "version", name="snapshots_pkey"),
    )
    if _is_postgresql():
        # PostgreSQL's own compression halves the rate of inserts, and what fits on a page needs
        # no rows elsewhere.
        op.execute("ALTER TABLE snapshots ALTER COLUMN state SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE snapshots SET (toast_tuple_target = 8160)")


def _create_audit_records() -> None:
    op.create_table(
        "audit_records",
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
        sa.Column("is_recovery_point", sa.Boolean, nullable=False),
        _snapshot_id(),
        _text_key("tenant"),
        _text_key("run_id"),
        sa.Column("checkpoint_type", sa.Text, nullable=False),
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("state_sha256", sa.LargeBinary),
        sa.Column("comparison_hash", sa.LargeBinary),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "version", name="audit_records_pkey"),
        sqlite_with_rowid=False,
    )


def _create_request_results() -> None:
    op.create_table(
        "request_results",
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("recorded_minute", sa.Integer, nullable=False),
        sa.Column("changed_fields_truncated", sa.Boolean, nullable=False),
        _text_key("tenant"),
        _text_key("run_id"),
        _text_key("request_id"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("changed_fields", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "request_id", name="request_results_pkey"),
        sqlite_with_rowid=False,
    )


def _create_indexes() -> None:
    newest_first = sa.text("active_minute DESC")
    listed = sa.column("deleted", sa.Boolean) == sa.false()
    op.create_index(
        "heads_by_time",
        "heads",
        ["tenant", newest_first],
        postgresql_where=listed,
        sqlite_where=listed,
    )
    for name in ("thread", "user"):
        column = f"{name}_id"
        op.create_index(
            f"heads_by_{name}",
            "heads",
            ["tenant", column, newest_first],
            postgresql_where=sa.column(column) != sa.literal_column("''"),
            sqlite_where=sa.column(column) != sa.literal_column("''"),
        )
    op.create_index(
        "snapshots_by_expiry",
        "snapshots",
        ["expires_at_us"],
        postgresql_where=sa.column("expires_at_us").is_not(None),
        sqlite_where=sa.column("expires_at_us").is_not(None),
    )
    op.create_index("request_results_by_time", "request_results", ["recorded_minute"])


def _copy_rows() -> None:
    packed = "snapshot_id::uuid"
    if not _is_postgresql():
        packed = "uuid_bytes(snapshot_id)"
        connection: Any = op.get_bind().connection
        connection.create_function("uuid_bytes", 1, _uuid_bytes, deterministic=True)
    heads = "tenant, run_id, thread_id, user_id, deleted, version, persisted_at_us, expires_at_us"
    heads += ", writer_sequence, comparison_hash, state_sha256, audit_hash, field_digests"
    minute = f"persisted_at_us / {MINUTE_US}"
    _copy("heads", heads, snapshot_id=packed, active_minute=minute)
    snapshots = "tenant, run_id, version, expires_at_us, base_version, state_bytes, depth"
    snapshots += ", agent_phase, execution_context, encoding, state"
    _copy("snapshots", snapshots, content_type="nullif(content_type, 'application/json')")
    audit = "tenant, run_id, version, recorded_at_us, is_recovery_point, checkpoint_type"
    audit += ", thread_id, user_id, request_id, state_sha256, comparison_hash, hash"
    _copy("audit_records", audit, snapshot_id=packed)
    results = "tenant, run_id, request_id, version, reason, fingerprint, changed_fields"
    results += ", changed_fields_truncated"
    _copy("request_results", results, recorded_minute=f"recorded_at_us / {MINUTE_US}")


def _uuid_bytes(text: str | None) -> bytes | None:
    return None if text is None else uuid.UUID(text).bytes


def _copy(table: str, unchanged: str, **changed: str) -> None:
    into = ", ".join((unchanged, *changed))
    values = ", ".join((unchanged, *changed.values()))
    op.execute(f"INSERT INTO {table} ({into}) SELECT {values} FROM {table}_before")  # noqa: S608  # our own names
