"""Payloads of versions that were read a short while ago, whether or not they stand.

Somebody who looks through a run's past loads the same versions again, or those beside them. A row
is read before each answer: it says whether the snapshot is still there, and by its SHA-256 whether
it is the one that is remembered. A version beside one that is remembered is read from there on
instead of from the beginning of its chain.
"""

from collections.abc import Callable
from dataclasses import replace

from cachetools import LRUCache

from statekeep_server.domain.model import LoadedState, RunKey, Snapshot

ENTRY_OVERHEAD_BYTES = 600
"""The hash, the key and the place of an entry, estimated from above."""

_Entry = tuple[bytes, bytes]
"""The SHA-256 of a payload, and the payload."""


class ReadPayloads:
    """Remembers payloads by the versions of their runs, least recently read first out.

    Args:
        max_bytes: Of all payloads remembered.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[tuple[RunKey, int], _Entry] = LRUCache(
            max_bytes, getsizeof=lambda entry: len(entry[1]) + ENTRY_OVERHEAD_BYTES
        )

    def holds(self, key: RunKey, version: int | None) -> bool:
        """Whether the payload of a version is remembered."""
        return (key, version) in self._entries

    def complete(self, found: LoadedState) -> LoadedState | None:
        """Add the state to a snapshot that was read without; None if another is remembered."""
        snapshot = found.snapshot
        entry = self._entries.get((snapshot.key, snapshot.version))
        if entry is None or entry[0] != snapshot.state_sha256:
            return None
        return replace(found, snapshot=replace(snapshot, state=entry[1]))

    def of_run(self, key: RunKey) -> Callable[[int], bytes | None]:
        """What is remembered of a run, by its versions."""

        def payload(version: int) -> bytes | None:
            entry = self._entries.get((key, version))
            return None if entry is None else entry[1]

        return payload

    def remember(self, snapshot: Snapshot) -> None:
        """Remember a snapshot that was read and checked."""
        state = snapshot.state or b""
        if len(state) + ENTRY_OVERHEAD_BYTES <= self._entries.maxsize:
            self._entries[snapshot.key, snapshot.version] = snapshot.state_sha256, state
