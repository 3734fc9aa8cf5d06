"""The real clock. Everything takes a clock as an argument, so that tests can turn its hands."""

import time


class SystemClock:
    """This machine's clock (implements `ports.Clock`)."""

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1_000
