"""The circuit breaker of the optimized path.

After `threshold` failures in a row the path rests: its saves go straight to standard. When the
rest is over one save probes; success closes the circuit, failure doubles the rest.
"""

from enum import Enum, auto

from statekeep_server.domain.errors import CircuitOpen
from statekeep_server.service.ports import Clock


class _Circuit(Enum):
    CLOSED = auto()
    OPEN = auto()
    PROBING = auto()


class Breaker:
    """Counts failures in a row and keeps callers away after too many.

    Every `admit` that returns is answered by exactly one of `succeeded`, `failed`, `released`.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        threshold: int = 5,
        first_rest_s: float = 1.0,
        longest_rest_s: float = 30.0,
    ) -> None:
        self._clock = clock
        self._threshold = threshold
        self._first_rest_s = first_rest_s
        self._longest_rest_s = longest_rest_s
        self._circuit = _Circuit.CLOSED
        self._failures = 0
        self._rest_s = first_rest_s
        self._rests_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether saves are kept off the path."""
        return self._circuit is not _Circuit.CLOSED

    def admit(self) -> None:
        """Let a save in, or raise CircuitOpen."""
        if self._circuit is _Circuit.CLOSED:
            return
        if self._circuit is _Circuit.OPEN and self._clock.monotonic_s() >= self._rests_until_s:
            self._circuit = _Circuit.PROBING
            return
        raise CircuitOpen

    def succeeded(self) -> None:
        """The path served the save, or refused it for a reason of the save's own."""
        self._circuit = _Circuit.CLOSED
        self._failures = 0
        self._rest_s = self._first_rest_s

    def released(self) -> None:
        """The save said nothing about the path: it was never tried. Another one may probe."""
        if self._circuit is _Circuit.PROBING:
            self._circuit = _Circuit.OPEN

    def failed(self) -> None:
        """The path could not serve the save."""
        self._failures += 1
        if self._circuit is _Circuit.PROBING:
            self._rest_s = min(self._rest_s * 2, self._longest_rest_s)
        elif self._failures < self._threshold:
            return
        self._circuit = _Circuit.OPEN
        self._rests_until_s = self._clock.monotonic_s() + self._rest_s
