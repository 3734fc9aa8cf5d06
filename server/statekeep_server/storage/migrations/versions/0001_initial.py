"""Heads, snapshots, audit records and request results."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and their indexes."""
    _create_heads()
    _create_snapshots()
    _create_audit_records()
    _create_request_results()


def _key(name: str) -> sa.Column[str]:
    by_code_point = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, by_code_point, nullable=False)


def _create_heads() -> None:
    op.create_table(
        "heads",
        _key("tenant"),
        _key("run_id"),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("snapshot_id", sa.Text),
        sa.Column("comparison_hash", sa.LargeBinary),
        sa.Column("state_sha256", sa.LargeBinary),
        sa.Column("field_digests", sa.LargeBinary, nullable=False),
        sa.Column("audit_hash", sa.LargeBinary, nullable=False),
        sa.Column("persisted_at_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("writer_sequence", sa.BigInteger),
        _key("thread_id"),
        _key("user_id"),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", name="heads_pkey"),
    )
    newest_first = sa.text("persisted_at_us DESC")
    op.create_index("heads_by_time", "heads", ["tenant", newest_first, "run_id"])
    for name in ("thread", "user"):
        column = f"{name}_id"
        op.create_index(
            f"heads_by_{name}",
            "heads",
            ["tenant", column, newest_first, "run_id"],
            postgresql_where=sa.column(column) != sa.literal_column("''"),
            sqlite_where=sa.column(column) != sa.literal_column("''"),
        )


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        _key("tenant"),
        _key("run_id"),
        sa.Column("version", sa.BigInteger, nullable=False),
        _key("snapshot_id"),
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("checkpoint_type", sa.Text, nullable=False),
        sa.Column("agent_phase", sa.Text, nullable=False),
        sa.Column("execution_context", sa.Text, nullable=False),
        sa.Column("is_recovery_point", sa.Boolean, nullable=False),
        sa.Column("persisted_at_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("state_bytes", sa.BigInteger, nullable=False),
        sa.Column("state_sha256", sa.LargeBinary, nullable=False),
        sa.Column("comparison_hash", sa.LargeBinary, nullable=False),
        sa.Column("encoding", sa.Text, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "version", name="snapshots_pkey"),
        sa.UniqueConstraint("tenant", "run_id", "snapshot_id", name="snapshots_by_id"),
    )
    op.create_index(
        "snapshots_by_expiry",
        "snapshots",
        ["expires_at_us"],
        postgresql_where=sa.column("expires_at_us").is_not(None),
        sqlite_where=sa.column("expires_at_us").is_not(None),
    )
    if op.get_bind().dialect.name == "postgresql":
        # PostgreSQL's own compression halves the rate of inserts.
        op.execute("ALTER TABLE snapshots ALTER COLUMN state SET STORAGE EXTERNAL")


def _create_audit_records() -> None:
    op.create_table(
        "audit_records",
        _key("tenant"),
        _key("run_id"),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("snapshot_id", sa.Text),
        sa.Column("state_sha256", sa.LargeBinary),
        sa.Column("comparison_hash", sa.LargeBinary),
        sa.Column("checkpoint_type", sa.Text, nullable=False),
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("is_recovery_point", sa.Boolean, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "version", name="audit_records_pkey"),
    )


def _create_request_results() -> None:
    op.create_table(
        "request_results",
        _key("tenant"),
        _key("run_id"),
        _key("request_id"),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("snapshot_id", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("state_sha256", sa.LargeBinary, nullable=False),
        sa.Column("comparison_hash", sa.LargeBinary, nullable=False),
        sa.Column("changed_fields", sa.Text, nullable=False),
        sa.Column("changed_fields_truncated", sa.Boolean, nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "request_id", name="request_results_pkey"),
    )
    op.create_index("request_results_by_time", "request_results", ["recorded_at_us"])
