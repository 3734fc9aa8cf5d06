"""The demo's journal: what an agent asked for and what was acknowledged, one JSON object a line.

It is the evidence of the proof. An agent that is killed may leave a torn last line, which says
nothing: an acknowledgement counts from its complete line on.

    {"event": "began", "step": 12, "version": 9}                  version 0: nothing was loaded
    {"event": "asked", "request_id": "…"}                         before a save is sent
    {"event": "acknowledged", "request_id": "…", "outcome": …, …}
    {"event": "finished", "answer": "…", "messages_sha256": "…"}
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What a server acknowledged, and how long its answer took."""

    request_id: str
    outcome: str
    reason: str
    version: int
    snapshot_id: str
    state_sha256: str
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What the lives of one agent left behind.

    Attributes:
        asked: Request ids, in order.
        acknowledged: Acknowledgements, in order.
        began_at: For each life, the step and the version that it went on from.
        answer: The final answer; None if the agent did not finish.
        messages_sha256: Of its final conversation.
    """

    asked: tuple[str, ...]
    acknowledged: tuple[Acknowledgement, ...]
    began_at: tuple[tuple[int, int], ...]
    answer: str | None
    messages_sha256: str | None

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Saves that were asked for and never answered: they may have happened or not."""
        answered = {each.request_id for each in self.acknowledged}
        return tuple(request_id for request_id in self.asked if request_id not in answered)


class JournalWriter:
    """Appends lines, each with one write, which survives the death of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def began(self, *, step: int, version: int) -> None:
        """Note that a life of the agent begins."""
        self._write({"event": "began", "step": step, "version": version})

    def asked(self, request_id: str) -> None:
        """Note a save before it is sent."""
        self._write({"event": "asked", "request_id": request_id})

    def acknowledged(self, acknowledgement: Acknowledgement) -> None:
        """Note an answer."""
        self._write({"event": "acknowledged", **asdict(acknowledgement)})

    def finished(self, *, answer: str, messages_sha256: str) -> None:
        """Note the end of the work."""
        self._write({"event": "finished", "answer": answer, "messages_sha256": messages_sha256})

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


@contextmanager
def open_journal(path: Path) -> Iterator[JournalWriter]:
    """Open a journal to append to it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # A torn line of an earlier life must not swallow the first of this one.
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            os.write(descriptor, b"\n")
        yield JournalWriter(descriptor)
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> Journal:
    """Read a journal as far as its complete lines go."""
    entries = list(_complete_lines(path))
    finished = [entry for entry in entries if entry["event"] == "finished"]
    return Journal(
        asked=tuple(entry["request_id"] for entry in entries if entry["event"] == "asked"),
        acknowledged=tuple(
            Acknowledgement(**{name: value for name, value in entry.items() if name != "event"})
            for entry in entries
            if entry["event"] == "acknowledged"
        ),
        began_at=tuple(
            (entry["step"], entry["version"]) for entry in entries if entry["event"] == "began"
        ),
        answer=finished[-1]["answer"] if finished else None,
        messages_sha256=finished[-1]["messages_sha256"] if finished else None,
    )


def count_acknowledged(path: Path) -> int:
    """How many saves were acknowledged so far."""
    return path.read_bytes().count(b'"event": "acknowledged"') if path.exists() else 0


def _complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    lines: Sequence[bytes] = path.read_bytes().split(b"\n") if path.exists() else []
    for line in lines[:-1]:
        try:
            yield json.loads(line)
        except ValueError:
            continue  # torn
