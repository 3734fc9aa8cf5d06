"""Flags: what operators set for the fleet, a tenant or a run, and the history of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables; a fleet without flags behaves as before."""
    op.create_table(
        "flags",
        _key("tenant"),
        _key("run_id"),
        _key("name"),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("set_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run_id", "name", name="flags_pkey"),
    )
    op.create_table(
        "flag_changes",
        sa.Column("version", sa.BigInteger, nullable=False, autoincrement=False),
        _key("tenant"),
        _key("run_id"),
        _key("name"),
        sa.Column("value_before", sa.Text),
        sa.Column("value_after", sa.Text),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("changed_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("version", name="flag_changes_pkey"),
    )


def _key(name: str) -> sa.Column[str]:
    by_code_point = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, by_code_point, nullable=False)
