"""Names that are unique and sort by the time of their making."""

from uuid_utils import uuid7


def new_id() -> str:
    """Make a time-ordered UUID (version 7)."""
    return str(uuid7())
