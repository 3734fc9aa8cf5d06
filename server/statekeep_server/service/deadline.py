"""The moment after which a caller no longer waits."""

from statekeep_server.domain.errors import DeadlineExceeded
from statekeep_server.domain.values import value_class
from statekeep_server.service.ports import Clock


@value_class()
class Deadline:
    """A moment of the monotonic clock; None never comes."""

    clock: Clock
    at_s: float | None

    @classmethod
    def after(cls, clock: Clock, seconds: float | None) -> "Deadline":
        """Make the deadline that comes after so many seconds."""
        return cls(clock, None if seconds is None else clock.monotonic_s() + seconds)

    def check(self) -> None:
        """Raise DeadlineExceeded when the moment has passed.

        Asked right before anything is sent to the database: a save whose caller is gone is not
        worth a transaction, and one that was sent is never abandoned.
        """
        if self.at_s is not None and self.clock.monotonic_s() >= self.at_s:
            raise DeadlineExceeded
