"""Ids of snapshots: UUIDs of version 8 that say which version of its run they name.

    tttttttt-tttt-8vvv-xvvv-xxxxxxxxxxxx

`t` is the time in milliseconds, as in a UUID of version 7, so that ids sort by it; `v` the
snapshot's version; `x` is random. So a snapshot is found by the key of its table, and its id needs
no index. Ids from before, and those of versions too large for 24 bits, which have zeros there, are
looked for in the audit log of their run.
"""

import uuid

MAX_VERSION = 0xFF_FFFF


def name_snapshot(made: str, version: int) -> str:
    """Write a version into a UUID that was made for a snapshot."""
    written = version if version <= MAX_VERSION else 0
    return f"{made[:14]}8{written >> 12:03x}-{made[19]}{written & 0xFFF:03x}{made[23:]}"


def version_named(snapshot_id: str) -> int | None:
    """Read the version that an id names; None if it names none."""
    if snapshot_id[14] != "8":
        return None
    return int(snapshot_id[15:18] + snapshot_id[20:23], 16) or None


def is_snapshot_id(text: str) -> bool:
    """Whether a text is written as ids are; no other one names a snapshot."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
