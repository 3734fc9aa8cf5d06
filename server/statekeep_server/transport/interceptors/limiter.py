"""The limit on calls under way, by count and by bytes. More are refused at once, not queued.

An own count, because gRPC's `maximum_concurrent_rpcs` has let calls through after refusals.
"""

from statekeep_server.domain.errors import Overloaded

MIB = 1024 * 1024
DEFAULT_MAX_BYTES = 256 * MIB
"""Of request messages. A save holds its message about three times: as sent, as parsed, as stored;
70 of the largest states at once stay below 1 GiB."""


class Limiter:
    """Counts the calls under way and the bytes of their requests."""

    def __init__(self, max_calls: int, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return self._calls

    def check(self) -> None:
        """Refuse a call whose message has not been read yet, when no room is left for any.

        Raises:
            Overloaded: As many calls as may be are under way.
        """
        if self._calls >= self._max_calls:
            raise Overloaded("too many calls are under way", limit=self._max_calls)

    def enter(self, size_bytes: int) -> None:
        """Count a call; every `enter` that returns needs one `leave` with the same size.

        A message larger than the limit passes when it is alone, or it never could.

        Raises:
            Overloaded: No room is left for this one.
        """
        self.check()
        if self._bytes and self._bytes + size_bytes > self._max_bytes:
            raise Overloaded("too many bytes are under way", limit=self._max_bytes)
        self._calls += 1
        self._bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """Count a call that has ended."""
        self._calls -= 1
        self._bytes -= size_bytes
