"""An event loop whose time passes only where everybody waits, and then at once.

What takes seconds takes none, and happens at exactly the moment that it should. It is for code
that does nothing but wait: an answer from outside would find that the time has passed without it.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: it moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise RuntimeError("everybody waits, and nobody for the time")
        self.now_s += max(timeout, 0.0)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Tell the time that would have passed, in seconds."""
        return self._jumping.now_s


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine from the moment 0 on."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work())
