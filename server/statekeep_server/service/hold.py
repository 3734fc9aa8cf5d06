"""What a save holds while it is under way: its place among its run's saves, and room."""

from typing import Self

from statekeep_server.batching.turns import Turn
from statekeep_server.domain.model import RunKey
from statekeep_server.service.admission import Admission


class Hold:
    """Held until the last of those who work on the save is done."""

    def __init__(self, turn: Turn[RunKey], admission: Admission, size_bytes: int) -> None:
        self._turn = turn
        self._admission = admission
        self._size_bytes = size_bytes
        self._holders = 1

    def share(self) -> Self:
        """Hold it once more, in line: whoever it is shared with begins a moment later."""
        self._turn.stand()
        self._holders += 1
        return self

    def release(self) -> None:
        """Let go: whoever shares it calls this once."""
        self._holders -= 1
        if not self._holders:
            self._turn.end()
            self._admission.leave(1, self._size_bytes)
