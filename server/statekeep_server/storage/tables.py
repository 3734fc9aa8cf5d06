"""The tables: heads, snapshots, audit records and request results, and the flags of the fleet.

Every key of states begins with the tenant and the run, and a save touches rows of one run only, so
that a distributed database can shard by run. The two tables of flags are small and never sharded.
Times are microseconds since the Unix epoch by the database's clock. The migrations create these
tables; a test holds the two together.

What a row says is said once: what describes a version is in its audit record, which is never
deleted, and snapshots and request results name it by its version. Columns are in the order of
their alignment, the widest first, so that PostgreSQL fills no gaps between them.
"""

import uuid
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    false,
)
from sqlalchemy.types import TypeEngine

METADATA = MetaData()


class SnapshotId(TypeDecorator[str]):
    """An id in 16 bytes: a uuid on PostgreSQL, a blob on SQLite."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column's type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=False))
        return dialect.type_descriptor(LargeBinary())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> object:
        """Pack an id."""
        if value is None or dialect.name == "postgresql":
            return value
        return uuid.UUID(value).bytes

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        """Unpack an id."""
        if value is None or dialect.name == "postgresql":
            return value
        return str(uuid.UUID(bytes=value))


def _text_key() -> TypeEngine[str]:
    """Text ordered by code point everywhere, so that every store cuts its pages alike."""
    return Text().with_variant(Text(collation="C"), "postgresql")


heads = Table(
    "heads",
    METADATA,
    # 0 only inside the transaction that writes the run for the first time.
    Column("version", BigInteger, nullable=False),
    Column("persisted_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("writer_sequence", BigInteger),
    # Of `persisted_at_us`. A save in the minute of the one before changes nothing that an index
    # holds, so that PostgreSQL touches no index for it.
    Column("active_minute", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("snapshot_id", SnapshotId),
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    # Of the newest write, for the list of runs, like `deleted`.
    Column("thread_id", _text_key(), nullable=False),
    Column("user_id", _text_key(), nullable=False),
    Column("comparison_hash", LargeBinary),
    Column("state_sha256", LargeBinary),
    Column("audit_hash", LargeBinary, nullable=False),
    Column("field_digests", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", name="heads_pkey"),
)
# PostgreSQL fills its pages to the half, so that a save finds room in the page of its head.

# For the list alone: statements that name a run never fit it, however small the table looks.
Index(
    "heads_by_time",
    heads.c.tenant,
    heads.c.active_minute.desc(),
    postgresql_where=heads.c.deleted == false(),
    sqlite_where=heads.c.deleted == false(),
)
# Most runs have no thread or no user: those cost these indexes nothing.
Index(
    "heads_by_thread",
    heads.c.tenant,
    heads.c.thread_id,
    heads.c.active_minute.desc(),
    postgresql_where=heads.c.thread_id != "",
    sqlite_where=heads.c.thread_id != "",
)
Index(
    "heads_by_user",
    heads.c.tenant,
    heads.c.user_id,
    heads.c.active_minute.desc(),
    postgresql_where=heads.c.user_id != "",
    sqlite_where=heads.c.user_id != "",
)

# What can go of a version: its state. The rest of a snapshot is in its audit record.
snapshots = Table(
    "snapshots",
    METADATA,
    Column("version", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger),
    # How the frame is to be read (`frames`): alone, or on the payload of another version.
    Column("base_version", BigInteger),
    # The size of the payload, whatever its frame in `state`.
    Column("state_bytes", Integer, nullable=False),
    Column("depth", SmallInteger, nullable=False),
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("agent_phase", Text, nullable=False),
    # NULL is JSON, which most states are.
    Column("content_type", Text),
    # A JSON object.
    Column("execution_context", Text, nullable=False),
    Column("encoding", Text, nullable=False),
    # On PostgreSQL STORAGE EXTERNAL (its own compression halves the rate of inserts), and in the
    # row as long as the row fits on a page.
    Column("state", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", "version", name="snapshots_pkey"),
)

Index(
    "snapshots_by_expiry",
    snapshots.c.expires_at_us,
    postgresql_where=snapshots.c.expires_at_us.is_not(None),
    sqlite_where=snapshots.c.expires_at_us.is_not(None),
)

# One record per version, deletions included. Never updated, never deleted.
audit_records = Table(
    "audit_records",
    METADATA,
    Column("version", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("is_recovery_point", Boolean, nullable=False),
    # NULL for a deletion, like the hashes of the state.
    Column("snapshot_id", SnapshotId),
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("checkpoint_type", Text, nullable=False),
    Column("thread_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("state_sha256", LargeBinary),
    Column("comparison_hash", LargeBinary),
    # Covers the hash of the record before.
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", "version", name="audit_records_pkey"),
    sqlite_with_rowid=False,
)

# What a request id remembers beyond the audit record of its version.
request_results = Table(
    "request_results",
    METADATA,
    Column("version", BigInteger, nullable=False),
    Column("recorded_minute", Integer, nullable=False),
    Column("changed_fields_truncated", Boolean, nullable=False),
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("request_id", _text_key(), nullable=False),
    Column("reason", Text, nullable=False),
    # Tells a retry from a request id that was used for another save.
    Column("fingerprint", LargeBinary, nullable=False),
    # A JSON array of names.
    Column("changed_fields", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", "request_id", name="request_results_pkey"),
    sqlite_with_rowid=False,
)

Index("request_results_by_time", request_results.c.recorded_minute)

# What operators set. A tenant or run that is empty stands for all of them.
flags = Table(
    "flags",
    METADATA,
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("name", _text_key(), nullable=False),
    Column("value", Text, nullable=False),
    # Of the change that set it.
    Column("version", BigInteger, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", "name", name="flags_pkey"),
)

# One row per change, numbered without gaps. Never updated, never deleted.
flag_changes = Table(
    "flag_changes",
    METADATA,
    Column("version", BigInteger, nullable=False, autoincrement=False),
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("name", _text_key(), nullable=False),
    # NULL where the flag was or is not set.
    Column("value_before", Text),
    Column("value_after", Text),
    Column("changed_by", Text, nullable=False),
    Column("changed_at_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("version", name="flag_changes_pkey"),
)
