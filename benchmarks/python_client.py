"""A Python gRPC client that saves prepared bodies, by unary calls or over one stream.

    python -m benchmarks.python_client

Reads one specification a line. Both ways send the same bodies and keep as many saves under way, so
that their ratio shows what a stream is worth to a client in Python. Answers are not decoded.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import grpc
import orjson
import uvloop

from benchmarks.bench import SAVE
from benchmarks.features import streaming
from benchmarks.states import make_states, save_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to send.

    Attributes:
        in_flight: Saves under way at once.
    """

    way: Literal["unary", "stream"]
    target: str
    recording: str
    prefix: str
    first_step: int
    in_flight: int = 16
    duration_s: float = 2.0
    warm_up_s: float = 0.3
    state_bytes: int = 10_240
    runs: int = 256


def _bodies(spec: Spec) -> Any:
    states = make_states(Path(spec.recording), state_bytes=spec.state_bytes)
    life = time.time_ns()
    for i in count():
        run_id = f"{spec.prefix}-{i % spec.runs}"
        state = states.state(run_id, spec.first_step + i // spec.runs)
        yield save_request(run_id, state, request_id=f"{life}-{i}")


class _Count:
    """Answers inside the measured time."""

    def __init__(self, spec: Spec) -> None:
        self.begin_s = time.perf_counter() + spec.warm_up_s
        self.end_s = self.begin_s + spec.duration_s
        self.answered = 0

    def add(self) -> None:
        """Count one answer, if it is time."""
        self.answered += self.begin_s <= time.perf_counter() < self.end_s


async def _unary(spec: Spec, channel: grpc.aio.Channel, count: _Count) -> None:
    call: Any = channel.unary_unary(SAVE)
    bodies = _bodies(spec)

    async def work() -> None:
        while time.perf_counter() < count.end_s:
            await call(next(bodies), timeout=30)
            count.add()

    async with asyncio.TaskGroup() as group:
        for _ in range(spec.in_flight):
            group.create_task(work())


async def _stream(spec: Spec, channel: grpc.aio.Channel, count: _Count) -> None:
    found = streaming()
    if found is None:
        raise ValueError("the contract has no streaming save")
    call: Any = channel.stream_stream(found.path)(timeout=spec.duration_s + 30)
    room = asyncio.Semaphore(spec.in_flight)

    async def write() -> None:
        for body in _bodies(spec):
            await room.acquire()
            if time.perf_counter() >= count.end_s:
                break
            await call.write(found.wrap(body))
        await call.done_writing()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        async for _ in call:
            count.add()
            room.release()


async def measure(spec: Spec) -> dict[str, Any]:
    """Save in a closed loop. Raises grpc.aio.AioRpcError."""
    make_states(Path(spec.recording), state_bytes=spec.state_bytes)  # before the clock runs
    options = [("grpc.max_receive_message_length", 1 << 24)]
    async with grpc.aio.insecure_channel(spec.target, options=options) as channel:
        way = _unary if spec.way == "unary" else _stream
        cpu_s, began_s = time.process_time(), time.perf_counter()
        count = _Count(spec)
        await way(spec, channel, count)
        share = (time.process_time() - cpu_s) / (time.perf_counter() - began_s)
    return {
        "answered": count.answered,
        "elapsed_s": spec.duration_s,
        "cpu_s": share * spec.duration_s,
    }


def _first_code(errors: BaseExceptionGroup[grpc.aio.AioRpcError]) -> str:
    first = errors.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return _first_code(first)
    return str(first.code().name)


def main() -> None:
    """Answer each specification."""
    for line in sys.stdin.buffer:
        try:
            answer = uvloop.run(measure(Spec(**orjson.loads(line))))
        except* grpc.aio.AioRpcError as errors:
            answer = {"refused": _first_code(errors)}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
