"""The tables: heads, snapshots, audit records and request results, and the flags of the fleet.

Every key of states begins with the tenant and the run, and a save touches rows of one run only, so
that a distributed database can shard by run. The two tables of flags are small and never sharded.
Times are microseconds since the Unix epoch by the database's clock. The migrations create these
tables; a test holds the two together.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

METADATA = MetaData()


def _text_key() -> TypeEngine[str]:
    """Text ordered by code point everywhere, so that every store cuts its pages alike."""
    return Text().with_variant(Text(collation="C"), "postgresql")


heads = Table(
    "heads",
    METADATA,
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    # 0 only inside the transaction that writes the run for the first time.
    Column("version", BigInteger, nullable=False),
    Column("snapshot_id", Text),
    Column("comparison_hash", LargeBinary),
    Column("state_sha256", LargeBinary),
    Column("field_digests", LargeBinary, nullable=False),
    Column("audit_hash", LargeBinary, nullable=False),
    Column("persisted_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("writer_sequence", BigInteger),
    # From here on: of the newest write, for the list of runs.
    Column("thread_id", _text_key(), nullable=False),
    Column("user_id", _text_key(), nullable=False),
    Column("deleted", Boolean, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", name="heads_pkey"),
)

Index("heads_by_time", heads.c.tenant, heads.c.persisted_at_us.desc(), heads.c.run_id)
# Most runs have no thread or no user: those cost these indexes nothing.
Index(
    "heads_by_thread",
    heads.c.tenant,
    heads.c.thread_id,
    heads.c.persisted_at_us.desc(),
    heads.c.run_id,
    postgresql_where=heads.c.thread_id != "",
    sqlite_where=heads.c.thread_id != "",
)
Index(
    "heads_by_user",
    heads.c.tenant,
    heads.c.user_id,
    heads.c.persisted_at_us.desc(),
    heads.c.run_id,
    postgresql_where=heads.c.user_id != "",
    sqlite_where=heads.c.user_id != "",
)

snapshots = Table(
    "snapshots",
    METADATA,
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("snapshot_id", _text_key(), nullable=False),
    Column("thread_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("checkpoint_type", Text, nullable=False),
    Column("agent_phase", Text, nullable=False),
    # A JSON object.
    Column("execution_context", Text, nullable=False),
    Column("is_recovery_point", Boolean, nullable=False),
    Column("persisted_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("content_type", Text, nullable=False),
    # Size and hash of the payload, whatever its frame in `state`.
    Column("state_bytes", BigInteger, nullable=False),
    Column("state_sha256", LargeBinary, nullable=False),
    Column("comparison_hash", LargeBinary, nullable=False),
    Column("encoding", Text, nullable=False),
    # STORAGE EXTERNAL on PostgreSQL: its own compression halves the rate of inserts.
    Column("state", LargeBinary, nullable=False),
    # How the frame is to be read (`frames`): alone, or on the payload of another version.
    Column("base_version", BigInteger),
    Column("base_sha256", LargeBinary),
    Column("depth", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("tenant", "run_id", "version", name="snapshots_pkey"),
    UniqueConstraint("tenant", "run_id", "snapshot_id", name="snapshots_by_id"),
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
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("snapshot_id", Text),
    Column("state_sha256", LargeBinary),
    Column("comparison_hash", LargeBinary),
    Column("checkpoint_type", Text, nullable=False),
    Column("thread_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("is_recovery_point", Boolean, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", "version", name="audit_records_pkey"),
)

request_results = Table(
    "request_results",
    METADATA,
    Column("tenant", _text_key(), nullable=False),
    Column("run_id", _text_key(), nullable=False),
    Column("request_id", _text_key(), nullable=False),
    # Tells a retry from a request id that was used for another save.
    Column("fingerprint", LargeBinary, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("snapshot_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state_sha256", LargeBinary, nullable=False),
    Column("comparison_hash", LargeBinary, nullable=False),
    # A JSON array of names.
    Column("changed_fields", Text, nullable=False),
    Column("changed_fields_truncated", Boolean, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "run_id", "request_id", name="request_results_pkey"),
)

Index("request_results_by_time", request_results.c.recorded_at_us)

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
