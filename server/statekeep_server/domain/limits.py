"""What a server accepts: a limit on everything that a caller sends."""

from dataclasses import dataclass, replace

MIB = 1024 * 1024

CODEC_DEPTH = 254
"""The nesting that the JSON codec can write. A test watches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server accepts, each a maximum."""

    max_state_bytes: int = 3_670_016
    """Bytes of one state that is sent in one message. 3.5 MiB: gRPC clients receive 4 MiB unless
    told otherwise, and a load must reach them."""
    max_large_state_bytes: int = 64 * MIB
    """Bytes of one state that is sent in chunks. One at a time is saved and one loaded, and each
    takes about four times its size in memory, an array of tiny strings up to sixteen times."""
    max_message_bytes: int = 16 * MIB
    """Bytes of one gRPC message: above `max_state_bytes`, so that a state over it gets our error
    and not the transport's."""
    max_batch_items: int = 256
    """Saves of one batch. Beyond 64 rows a transaction grows no faster; four times that is room
    enough."""
    max_depth: int = 128
    """Levels of nesting of a JSON state: twice what agents nest, half of what the JSON codec can
    write."""
    max_integer_digits: int = 4_300
    """Digits of an integer in a JSON state: the limit of CPython's own conversion."""
    max_members: int = 100_000
    """Object members of a JSON state, all levels together, and likewise its arrays and objects: no
    agent has so many. They take 10 to 30 ms to compare, or 500 as members of one object."""
    max_id_characters: int = 256
    """Characters of a run, a thread, a user or a phase."""
    max_request_id_characters: int = 128
    """Characters of a request id."""
    max_context_entries: int = 64
    """Entries of an execution context."""
    max_context_bytes: int = 16 * 1024
    """Bytes of an execution context."""
    max_ignored_fields: int = 64
    """Ignored fields that one request may add."""

    def of_large_states(self) -> "Limits":
        """Make the limits of a save that comes in chunks."""
        return replace(self, max_state_bytes=self.max_large_state_bytes)

    def __post_init__(self) -> None:
        # The canonical form puts every value into at least one list, to find its depth.
        if not 1 <= self.max_depth < CODEC_DEPTH:
            raise ValueError(f"max_depth must be from 1 to {CODEC_DEPTH - 1}: {self.max_depth}")
