"""Admission: how many saves, and how many bytes of them, a server holds at once.

A share is kept for saves that are never skipped: under overload a manual checkpoint or a recovery
point must still get through.
"""

from statekeep_server.domain.errors import Overloaded

RESERVED_SHARE = 8
"""One place in so many, and one byte in so many, is kept for what is never skipped."""


class Admission:
    """Counts the saves under way.

    Args:
        max_saves: At once.
        max_bytes: Of their states.
    """

    def __init__(self, max_saves: int, max_bytes: int) -> None:
        self._max_saves = max_saves
        self._max_bytes = max_bytes
        self._saves = 0
        self._bytes = 0

    @property
    def saves(self) -> int:
        """How many are under way."""
        return self._saves

    def enter(self, saves: int, size_bytes: int, *, reserved: bool) -> None:
        """Let saves in, or raise Overloaded; what was let in leaves by `leave`."""
        max_saves, max_bytes = self._max_saves, self._max_bytes
        if not reserved:
            max_saves -= max_saves // RESERVED_SHARE
            max_bytes -= max_bytes // RESERVED_SHARE
        if self._saves + saves > max_saves:
            raise Overloaded(
                f"{self._saves} saves are under way, the limit is {max_saves}", limit=max_saves
            )
        # One save is let in whatever its size: that is bounded by itself.
        if self._saves and self._bytes + size_bytes > max_bytes:
            raise Overloaded(
                f"saves of {self._bytes} bytes are under way, the limit is {max_bytes}",
                limit=max_bytes,
            )
        self._saves += saves
        self._bytes += size_bytes

    def leave(self, saves: int, size_bytes: int) -> None:
        """Count saves out."""
        self._saves -= saves
        self._bytes -= size_bytes
