"""The audit log: a chain of hashes per run, one record for every state persisted or run deleted.

A record's hash covers the hash before it, so that no record can be changed, removed from the
middle or moved to another run without breaking every link after it. The parts of a link are
framed (see `domain.framing`) in the order of `_parts`, after the previous hash.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from statekeep_server.domain.framing import digest, maybe, number
from statekeep_server.domain.model import RunKey
from statekeep_server.domain.values import value_class

GENESIS = bytes(32)
"""The hash before a run's first record."""

TAG = "statekeep audit 1"

Kind = Literal["SAVE", "DELETE"]


@value_class(kw_only=True)
class AuditRecord:
    """One link of a run's chain.

    Attributes:
        version: That the head took with this record; contiguous from 1.
        snapshot_id, state_sha256, comparison_hash: Of the persisted state; None for a deletion.
        checkpoint_type, thread_id, user_id, request_id: As the save named them; empty for a
            deletion.
        recorded_at_us: By the database's clock.
        hash: `link(previous, record)` with the hash of the record before, `GENESIS` for the first.
    """

    key: RunKey
    version: int
    kind: Kind
    snapshot_id: str | None
    state_sha256: bytes | None
    comparison_hash: bytes | None
    checkpoint_type: str
    thread_id: str
    user_id: str
    is_recovery_point: bool
    request_id: str
    recorded_at_us: int
    hash: bytes = b""


def link(previous: bytes, record: AuditRecord) -> bytes:
    """Hash a record after the previous hash; its own `hash` is not read."""
    return digest(TAG, (previous, *_parts(record)))


def seal(previous: bytes, record: AuditRecord) -> AuditRecord:
    """Give a record its place in the chain."""
    return replace(record, hash=link(previous, record))


def verify_chain(
    records: Iterable[AuditRecord], *, previous: bytes = GENESIS, version: int = 0
) -> int | None:
    """Return the version of the first record of a run that breaks the chain; None if none does.

    `previous` and `version` are those of the record before the first one given. A missing record
    is reported as the one that follows it. Records missing at the end are seen by comparing the
    last hash with that of the run's head.
    """
    key: RunKey | None = None
    for record in records:
        key = key or record.key
        version += 1
        intact = (
            record.key == key
            and record.version == version
            and record.hash == link(previous, record)
        )
        if not intact:
            return record.version
        previous = record.hash
    return None


def _parts(record: AuditRecord) -> Iterator[bytes]:
    yield record.key.tenant.encode()
    yield record.key.run_id.encode()
    yield number(record.version)
    yield record.kind.encode()
    yield maybe(None if record.snapshot_id is None else record.snapshot_id.encode())
    yield maybe(record.state_sha256)
    yield maybe(record.comparison_hash)
    yield record.checkpoint_type.encode()
    yield record.thread_id.encode()
    yield record.user_id.encode()
    yield b"1" if record.is_recovery_point else b"0"
    yield record.request_id.encode()
    yield number(record.recorded_at_us)
