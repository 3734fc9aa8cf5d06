"""Frames of snapshots: what a frame builds on, and how deep its chain is."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; rows from before stand alone, and stay as they are."""
    op.add_column("snapshots", sa.Column("base_version", sa.BigInteger))
    op.add_column("snapshots", sa.Column("base_sha256", sa.LargeBinary))
    op.add_column(
        "snapshots", sa.Column("depth", sa.BigInteger, nullable=False, server_default="0")
    )
