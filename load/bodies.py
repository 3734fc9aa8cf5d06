"""Request bodies for ghz: serialized messages in a file, each behind its length.

A call takes the next body of the file. There are as many bodies as calls, so that no save comes
twice: a repeated one would be a retry, and cost next to nothing.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.states import States, load_request, save_request

STORE = "statestore"
"""The name of the Dapr component."""


def write_bodies(path: Path, bodies: Iterable[bytes]) -> int:
    """Write bodies as ghz's `--binary-file` wants them; return how many."""
    count = 0
    with path.open("wb") as file:
        for body in bodies:
            file.write(_varint(len(body)) + body)
            count += 1
    return count


def save_bodies(states: States, prefix: str, *, runs: int, calls: int) -> Iterator[bytes]:
    """Saves of distinct states: the runs take turns, each with its next step."""
    for call in range(calls):
        run_id = f"{prefix}-{call % runs}"
        state = states.state(run_id, call // runs)
        yield save_request(run_id, state, request_id=f"{prefix}-{call}")


def skip_bodies(states: States, prefix: str, *, runs: int, calls: int) -> Iterator[bytes]:
    """Saves of the state that the first save of each run left, with another heartbeat."""
    for call in range(calls):
        run_id = f"{prefix}-{call % runs}"
        state = states.state(run_id, 0, heartbeat=1 + call)
        yield save_request(run_id, state, request_id=f"{prefix}-again-{call}")


def load_bodies(prefix: str, *, runs: int, calls: int, zipf_exponent: float) -> Iterator[bytes]:
    """Loads of the newest state: the n-th run is asked for n ** -zipf_exponent times as often.

    The same arguments give the same bodies.
    """
    weights = [rank**-zipf_exponent for rank in range(1, runs + 1)]
    chosen = random.Random(runs).choices(  # noqa: S311  # a load, not a secret
        range(runs), cum_weights=list(itertools.accumulate(weights)), k=calls
    )
    for run in chosen:
        yield load_request(f"{prefix}-{run}")


def dapr_bodies(states: States, prefix: str, *, runs: int, calls: int) -> Iterator[bytes]:
    """The states of `save_bodies` as `SaveStateRequest`s of Dapr, a run's id being the key."""
    store = _field(1, STORE.encode())
    for call in range(calls):
        run_id = f"{prefix}-{call % runs}"
        state = states.state(run_id, call // runs)
        yield store + _field(2, _field(1, run_id.encode()) + _field(2, state))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message, of a number below 16."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
