"""States of a wished size, made from the work of the demo's agent, for load tests.

A state is what an agent with a bounded context keeps: the newest messages of its conversation. At
every step one joins and old ones leave, so that each save of a run is a new state. The messages of
runs are different ones, and the fields that are ignored by default change in every state.
"""

from collections import deque
from collections.abc import Sequence

import orjson

from statekeep_server.bench.record import record

AGENTS, STEPS = 16, 40
"""So many conversations of so many messages: more than a client process can have under way."""
HEAD_BYTES = 160
"""What a state has besides its messages, about."""


class LoadStates:
    """Makes states. One is shared by all callers of a process."""

    def __init__(self, *, state_bytes: int, agents: int = AGENTS) -> None:
        self._room = max(0, state_bytes - HEAD_BYTES)
        self._conversations: list[Sequence[bytes]] = [
            [orjson.dumps(message) for message in work.messages]
            for work in record(runs=agents, steps=STEPS, seed=1)
        ]
        self._windows: dict[tuple[int, int], bytes] = {}

    def state(self, run_id: str, number: int, step: int, *, heartbeat: int = 0) -> bytes:
        """The JSON of a run's state at a step; another heartbeat is no meaningful change."""
        conversation = number % len(self._conversations)
        end = step % len(self._conversations[conversation])
        window = self._windows.get((conversation, end))
        if window is None:
            window = self._windows[conversation, end] = self._window(conversation, end)
        return b'{"run_id":"%b","step_count":%d,"heartbeat_count":%d,"step":%d,%b}' % (
            run_id.encode(),
            step,
            heartbeat,
            step,
            window,
        )

    def _window(self, conversation: int, end: int) -> bytes:
        """The newest messages that fit; the rest is one text cut to the size."""
        messages = self._conversations[conversation]
        window: deque[bytes] = deque()
        room = self._room
        at = end
        while len(messages[at % len(messages)]) + 1 <= room:
            message = messages[at % len(messages)]
            window.appendleft(message)
            room -= len(message) + 1
            at -= 1
        oldest = messages[at % len(messages)].decode(errors="ignore")
        earlier = "".join(each for each in oldest if each.isalnum() or each == " ")[:room]
        return b'"earlier":%b,"messages":[%b]' % (orjson.dumps(earlier), b",".join(window))
