"""How long to wait before a conflicting update is tried again."""

from collections.abc import Callable

FIRST_S = 0.01
MAX_S = 1.0


def conflict_delay_s(conflicts: int, random: Callable[[], float]) -> float:
    """Wait longer with every conflict, and never as long as the others do.

    `random` gives numbers from 0 to 1. Half of the wait is chance: writers that collided would
    otherwise meet again.
    """
    longest_s = min(MAX_S, FIRST_S * 2.0 ** min(conflicts, 10))
    return longest_s * (0.5 + 0.5 * random())
