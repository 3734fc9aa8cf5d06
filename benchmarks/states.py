"""States and requests as bytes, made from recorded conversations of agents.

The state of a run at a step is what an agent with a bounded context keeps: the newest messages of
a conversation, the oldest of them cut, together of the wanted size. From step to step a message
joins and old ones leave. Every run and every step has a state of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from statekeep_server.bench.trajectories import read_trajectories

STEPS = 16
"""After so many saves a run begins its conversation again."""
CONVERSATIONS = 48
"""Places in the recording at which runs begin: 768 different states."""
MEMORY_BYTES = 64 * 1024 * 1024
"""Of large states there are fewer."""
HEAD_BYTES = 120
"""Run, counters and status take about so many bytes of a state."""
AUTO = 2
"""The number of the checkpoint type that may be skipped."""
JSON = "application/json"

RUN_ID, STATE, CHECKPOINT_TYPE, REQUEST_ID, RECOVERY_POINT = 1, 4, 5, 10, 8
"""The numbers of the fields of `SaveAgentStateRequest`; a test compares them with the contract."""


@dataclass(frozen=True, slots=True)
class States:
    """The parts that states are joined from: by conversation and step, without run and counters."""

    parts: tuple[tuple[bytes, ...], ...]

    def state(self, run_id: str, step: int, *, heartbeat: int = 0) -> bytes:
        """The state of a run at a step. Another heartbeat is no meaningful change."""
        number = int(run_id.rpartition("-")[2])
        conversation = self.parts[number % len(self.parts)]
        head = b'{"run_id":"%b","step_count":%d,"heartbeat_count":%d,' % (
            run_id.encode(),
            step,
            heartbeat,
        )
        return head + conversation[step % len(conversation)]


@cache
def make_states(recording: Path, *, state_bytes: int) -> States:
    """Cut states of about `state_bytes` from a recording, once in a process.

    It takes longer than a measurement. Raises TrajectoryError.
    """
    messages = [
        message for trajectory in read_trajectories(recording) for message in trajectory.messages
    ]
    conversations = max(1, min(CONVERSATIONS, MEMORY_BYTES // (STEPS * state_bytes)))
    stride = max(1, len(messages) // conversations)
    return States(
        tuple(
            tuple(
                _tail(_window(messages, begin + step, state_bytes - HEAD_BYTES))
                for step in range(1, STEPS + 1)
            )
            for begin in range(0, stride * conversations, stride)
        )
    )


def _window(messages: Sequence[dict[str, Any]], end: int, room: int) -> list[dict[str, Any]]:
    """The newest messages before `end` (the recording is a ring), the oldest cut to fit."""
    window: list[dict[str, Any]] = []
    while room > 60:
        end -= 1
        message = messages[end % len(messages)]
        size = len(orjson.dumps(message)) + 1
        if size > room:
            message = _cut(message, room)
            size = len(orjson.dumps(message)) + 1
        window.insert(0, message)
        room -= size
    return window


def _cut(message: dict[str, Any], room: int) -> dict[str, Any]:
    """A message with as much of its text as fits; quotes and the like take more than one byte."""
    text = str(message.get("content") or message.get("tool_calls") or "")
    cut = {"role": message["role"], "content": text[:room]}
    while (excess := len(orjson.dumps(cut)) + 1 - room) > 0 and cut["content"]:
        cut["content"] = cut["content"][: -max(1, excess // 2)]
    return cut


def _tail(messages: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"status": "running", "messages": messages})[1:]


def save_request(
    run_id: str,
    state: bytes,
    *,
    request_id: str,
    checkpoint_type: int = AUTO,
    is_recovery_point: bool = False,
) -> bytes:
    """A serialized `SaveAgentStateRequest`."""
    return b"".join(
        (
            _field(RUN_ID, run_id.encode()),
            _field(STATE, _field(1, state) + _field(2, JSON.encode())),
            bytes([CHECKPOINT_TYPE << 3, checkpoint_type]),
            bytes([RECOVERY_POINT << 3, 1]) if is_recovery_point else b"",
            _field(REQUEST_ID, request_id.encode()),
        )
    )


def load_request(run_id: str, version: int | None = None) -> bytes:
    """A serialized `LoadAgentStateRequest`."""
    wanted = b"" if version is None else bytes([2 << 3]) + _varint(version)
    return _field(1, run_id.encode()) + wanted


def _field(number: int, value: bytes) -> bytes:
    """A field with a length, of a number below 16."""
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
