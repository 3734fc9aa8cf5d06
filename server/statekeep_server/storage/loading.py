"""What every store does alike: how it checks a snapshot, what it says without one, its minutes."""

from hashlib import sha256

from statekeep_server.domain.errors import RunNotFound, SnapshotNotFound, StateCorrupt
from statekeep_server.domain.model import ById, ByVersion, Newest, RunKey, Selector, Snapshot

MINUTE_US = 60_000_000


def minute_of(time_us: int) -> int:
    """The minute of a time. Results of requests are kept until a minute has passed whole."""
    return time_us // MINUTE_US


def verified(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot whose bytes are those that were saved.

    Raises StateCorrupt.
    """
    state = snapshot.state or b""
    if len(state) != snapshot.state_bytes or sha256(state).digest() != snapshot.state_sha256:
        raise StateCorrupt(snapshot.key.run_id, snapshot.snapshot_id)
    return snapshot


def not_found(key: RunKey, selector: Selector) -> RunNotFound | SnapshotNotFound:
    """Make the error for a selector that selects no live snapshot of the run."""
    match selector:
        case ByVersion(version):
            return SnapshotNotFound(key.run_id, version=version)
        case ById(snapshot_id):
            return SnapshotNotFound(key.run_id, snapshot_id=snapshot_id)
        case Newest():
            return RunNotFound(key.run_id)
