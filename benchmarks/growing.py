"""Runs that grow: what a database is filled with when bytes are compared."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from statekeep_server.bench.streams import StreamName, stream
from statekeep_server.bench.trajectories import read_trajectories

STEPS = 200
STEP_BYTES = 1_870
"""A turn of a tool-calling agent (a call, its result, an answer): the last state has 374 kB and all
200 together have 37.6 MB."""

Which = Literal["growing", "after"]


def growing_states(
    recording: Path, which: Which, *, steps: int = STEPS
) -> Iterator[tuple[str, Iterator[Mapping[str, Any]]]]:
    """Runs and their states in order.

    `growing` is one run of 200 steps, each of which appends some messages of the recording, one
    after another; `after` is the stream of that name, one run for each conversation.

    Raises TrajectoryError.
    """
    if which == "after":
        for number, trajectory in enumerate(read_trajectories(recording)):
            run_id = f"after-{number}"
            saves = stream(StreamName.AFTER, trajectory, run_id)
            yield run_id, (save.state for save in saves)
    else:
        yield "growing-0", _growing(recording, steps)


def _growing(recording: Path, steps: int) -> Iterator[Mapping[str, Any]]:
    said = [
        message
        for trajectory in read_trajectories(recording)
        for message in trajectory.messages
        if message["role"] != "system"  # every conversation begins with the same one
    ]
    messages: list[Mapping[str, Any]] = []
    at = 0
    size = 0
    for step in range(1, steps + 1):
        while size < step * STEP_BYTES:
            message = said[at % len(said)]
            messages.append(message)
            size += len(orjson.dumps(message)) + 1
            at += 1
        yield {
            "run_id": "growing-0",
            "messages": list(messages),
            "step_count": step,
            "status": "running",
            "last_updated": f"2024-05-15T08:{step // 60:02}:{step % 60:02}Z",
            "heartbeat_count": step,
        }
