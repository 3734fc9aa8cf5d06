"""What an agent saves while it works: the two checkpoint streams that benchmarks report.

`around`: an agent that checkpoints around every step. For each message, in this order:

1. `PHASE_TRANSITION`, if the message is the first answer to a tool call, that is, if it comes
   from a tool and the message before it does not: the state as it stands;
2. `AUTO` before the step: the state as it stands, with one more heartbeat;
3. `AUTO` after the step: the message appended.

At the end, of the final state: one `MANUAL` save and one recovery point. The recovery point is of
the type `AUTO`, so that nothing but its mark keeps it.

`after`: only 3. It holds no trivial save at all, the two at the end included, and shows what an
agent gains that saves sparingly already.

Every save has a new `last_updated`; nothing else in the state changes unless said above. A state
is `completed` once its last message is in.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from statekeep_server.bench.trajectories import Trajectory

FIRST_SAVE_AT = datetime(2024, 5, 15, 8, 0, 0, tzinfo=UTC)
BETWEEN_SAVES = timedelta(milliseconds=1_500)


class StreamName(StrEnum):
    """The checkpoint streams."""

    AROUND = "around"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class StreamSave:
    """One save that an agent asks for. The state is a JSON object of its own."""

    state: Mapping[str, Any]
    checkpoint_type: str
    is_recovery_point: bool = False


class Checkpoints:
    """Makes the saves of one run from what its agent is about to do and has done.

    A body is the state without `run_id`, `last_updated` and `heartbeat_count`.
    """

    def __init__(
        self, run_id: str, now: Callable[[], datetime], *, heartbeat_count: int = 0
    ) -> None:
        self._run_id = run_id
        self._now = now
        self._heartbeat_count = heartbeat_count

    def before(
        self, body: Mapping[str, Any], *, role_before: str | None, role: str
    ) -> Iterator[StreamSave]:
        """The saves before a step that will add a message of `role`."""
        if role == "tool" and role_before != "tool":
            yield StreamSave(self._state(body), "PHASE_TRANSITION")
        self._heartbeat_count += 1
        yield StreamSave(self._state(body), "AUTO")

    def after(self, body: Mapping[str, Any]) -> StreamSave:
        """The save after a step."""
        return StreamSave(self._state(body), "AUTO")

    def end(self, body: Mapping[str, Any]) -> Iterator[StreamSave]:
        """The saves of the final state."""
        yield StreamSave(self._state(body), "MANUAL")
        yield StreamSave(self._state(body), "AUTO", is_recovery_point=True)

    def _state(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "run_id": self._run_id,
            **body,
            "last_updated": self._now().isoformat().replace("+00:00", "Z"),
            "heartbeat_count": self._heartbeat_count,
        }


def stream(name: StreamName, trajectory: Trajectory, run_id: str) -> Iterator[StreamSave]:
    """The saves of one trajectory, always the same ones."""
    around = name is StreamName.AROUND
    checkpoints = Checkpoints(run_id, _ticking())
    role_before = None
    for index, message in enumerate(trajectory.messages):
        if around:
            body = _body(trajectory, index)
            role = str(message["role"])
            yield from checkpoints.before(body, role_before=role_before, role=role)
        yield checkpoints.after(_body(trajectory, index + 1))
        role_before = str(message["role"])
    if around:
        yield from checkpoints.end(_body(trajectory, len(trajectory.messages)))


def count_saves(name: StreamName, trajectory: Trajectory) -> int:
    """How many saves the stream of a trajectory has."""
    return sum(1 for _ in stream(name, trajectory, ""))


def _body(trajectory: Trajectory, messages: int) -> dict[str, Any]:
    return {
        "messages": list(trajectory.messages[:messages]),
        "step_count": messages,
        "status": "completed" if messages == len(trajectory.messages) else "running",
    }


def _ticking() -> Callable[[], datetime]:
    """A clock that moves at every look, the same for every run."""
    looks = 0

    def now() -> datetime:
        nonlocal looks
        looks += 1
        return FIRST_SAVE_AT + looks * BETWEEN_SAVES

    return now
