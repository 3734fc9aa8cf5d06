"""A clock whose hands the test turns."""


class ManualClock:
    """Implements `ports.Clock`; starts at a fixed moment and moves only when told."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.epoch_us = 1_750_000_000_000_000

    def monotonic_s(self) -> float:
        return self.seconds

    def now_us(self) -> int:
        return self.epoch_us + round((self.seconds - 1_000.0) * 1_000_000)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
