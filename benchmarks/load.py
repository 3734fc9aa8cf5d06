"""A process that loads servers in a closed loop, a specification a line.

    python -m benchmarks.load

As many calls as the concurrency says are under way at any time, spread over some connections; each
answer begins the next call. What was answered inside the measured time counts; what is still under
way at its end is waited for and reported apart, so that a server's own count can be compared.
"""

import selectors
import socket
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import orjson

from benchmarks.http2 import Connection
from benchmarks.states import load_request, make_states, save_request

DRAIN_S = 30.0
READ_BYTES = 1 << 18

Kind = Literal["save", "skip", "load", "prepare", "script", "version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a process is to send.

    Attributes:
        kind: `save` gives every run its next state; `prepare` likewise, but ends by itself; `skip`
            repeats the state that `prepare` saved, with another heartbeat; `load` loads the newest
            state of runs; `version` some versions of one run; `script` sends the bodies of a file.
        prefix: Begins the id of every run.
        runs: How many runs take turns.
        saves: How many `prepare` sends, each run one if 0; the first is number `first_save`.
        duration_s: How long to measure; ignored by `prepare` and `script`, which end by themselves.
        versions: Which versions `version` loads, one after another.
    """

    kind: Kind
    port: int
    path: str
    concurrency: int
    recording: str
    prefix: str
    connections: int = 4
    runs: int = 1024
    duration_s: float = 3.0
    warm_up_s: float = 0.5
    state_bytes: int = 10_240
    first_step: int = 0
    saves: int = 0
    first_save: int = 0
    versions: tuple[int, ...] = ()
    script: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came back.

    Attributes:
        answered: OK answers inside the measured time.
        total: OK answers from the first call to the last, warm-up and drain included.
        errors: Answers with another status; the first one is in `error`.
        cpu_s: Processor time of this process while it measured.
        latencies_us: Of the answers inside the measured time, in the order of arrival.
    """

    answered: int
    total: int
    errors: int
    error: str
    elapsed_s: float
    cpu_s: float
    latencies_us: list[int]


def requests_of(spec: Spec) -> Iterator[bytes]:
    """The bodies to send, endless unless the kind ends by itself."""
    if spec.kind == "load":
        return (load_request(f"{spec.prefix}-{i % spec.runs}") for i in count())
    if spec.kind == "version":
        run_id = f"{spec.prefix}-0"
        return (load_request(run_id, spec.versions[i % len(spec.versions)]) for i in count())
    states = make_states(Path(spec.recording), state_bytes=spec.state_bytes)
    life = time.time_ns()

    def save(i: int, step: int, heartbeat: int = 0) -> bytes:
        run_id = f"{spec.prefix}-{i % spec.runs}"
        state = states.state(run_id, step, heartbeat=heartbeat)
        return save_request(run_id, state, request_id=f"{life}-{i}")

    if spec.kind == "prepare":
        numbers = range(spec.first_save, spec.first_save + (spec.saves or spec.runs))
        return (save(i, spec.first_step + i // spec.runs) for i in numbers)
    if spec.kind == "skip":
        return (save(i, spec.first_step, heartbeat=1 + i) for i in count())
    return (save(i, spec.first_step + i // spec.runs) for i in count())


def read_script(path: Path) -> list[list[bytes]]:
    """One list of bodies per agent, as `write_script` wrote them."""
    agents: list[list[bytes]] = []
    with path.open("rb") as file:
        for line in file:
            sizes = orjson.loads(line)
            agents.append([file.read(size) for size in sizes])
    return agents


def write_script(path: Path, agents: list[list[bytes]]) -> None:
    """Write bodies for the kind `script`: each agent's are sent one after another."""
    with path.open("wb") as file:
        for bodies in agents:
            file.write(orjson.dumps([len(body) for body in bodies]) + b"\n")
            file.writelines(bodies)


class _Wire:
    """A socket and its connection."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.connection = Connection(f"127.0.0.1:{port}", path)
        self.unsent = b""
        self.events = selectors.EVENT_READ

    def flush(self) -> bool:
        """Send what there is; whether everything was sent."""
        output = self.connection.take_output()
        self.unsent = self.unsent + output if self.unsent else output
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return False
            self.unsent = self.unsent[sent:] if sent < len(self.unsent) else b""
        return True


class _Loop:
    """The closed loop over all connections."""

    def __init__(self, spec: Spec) -> None:
        connections = min(spec.connections, spec.concurrency)
        self._wires = [_Wire(spec.port, spec.path) for _ in range(connections)]
        self._selector = selectors.DefaultSelector()
        for number, wire in enumerate(self._wires):
            self._selector.register(wire.socket, selectors.EVENT_READ, number)
        self._under_way: dict[tuple[int, int], tuple[float, int]] = {}
        self.latencies_us = array("q")
        self.answered_at_s = array("d")
        self.errors = 0
        self.error = ""

    def run(self, concurrency: int, next_body: Callable[[int], bytes | None]) -> None:
        """Keep `concurrency` calls under way until there are no more bodies, then wait for all."""
        for slot in range(concurrency):
            self._begin(slot % len(self._wires), slot, next_body)
        for number in range(len(self._wires)):
            self._flush(number)
        quiet_s = time.perf_counter() + DRAIN_S
        while self._under_way:
            ready = self._selector.select(timeout=1.0)
            if ready:
                quiet_s = time.perf_counter() + DRAIN_S
            elif time.perf_counter() > quiet_s:
                raise TimeoutError(f"{len(self._under_way)} calls were never answered")
            for key, events in ready:
                if events & selectors.EVENT_READ:
                    self._read(key.data, next_body)
                self._flush(key.data)

    def _begin(self, number: int, slot: int, next_body: Callable[[int], bytes | None]) -> None:
        body = next_body(slot)
        if body is not None:
            stream_id = self._wires[number].connection.request(body)
            self._under_way[number, stream_id] = (time.perf_counter(), slot)

    def _read(self, number: int, next_body: Callable[[int], bytes | None]) -> None:
        wire = self._wires[number]
        try:
            data = wire.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the server closed the connection")
        now_s = time.perf_counter()
        for answer in wire.connection.receive(data):
            began_s, slot = self._under_way.pop((number, answer.stream_id))
            if answer.ok:
                self.latencies_us.append(int((now_s - began_s) * 1e6))
                self.answered_at_s.append(now_s)
            else:
                self.errors += 1
                self.error = self.error or repr(answer.trailers)[:400]
            self._begin(number, slot, next_body)

    def _flush(self, number: int) -> None:
        wire = self._wires[number]
        done = wire.flush()
        events = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
        if events != wire.events:
            wire.events = events
            self._selector.modify(wire.socket, events, number)


def load(spec: Spec) -> Result:
    """Send what the spec says. Raises ProtocolError, OSError and TimeoutError."""
    ends_alone = spec.kind in {"prepare", "script"}
    agents = [iter(bodies) for bodies in read_script(Path(spec.script))] if spec.script else []
    bodies = iter(()) if agents else requests_of(spec)
    warm_up_s = 0.0 if ends_alone else spec.warm_up_s
    loop = _Loop(spec)
    begin_s = time.perf_counter() + warm_up_s
    end_s = float("inf") if ends_alone else begin_s + spec.duration_s
    cpu: list[float] = []

    def next_body(slot: int) -> bytes | None:
        now_s = time.perf_counter()
        if now_s >= begin_s and not cpu:
            cpu.append(time.process_time())
        if now_s >= end_s:
            if len(cpu) == 1:
                cpu.append(time.process_time())
            return None
        return next(agents[slot] if agents else bodies, None)

    at_begin = time.process_time()
    loop.run(len(agents) or spec.concurrency, next_body)
    at_end = time.process_time()
    finished_s = max(loop.answered_at_s, default=begin_s)
    elapsed_s = (finished_s - begin_s) if ends_alone else spec.duration_s
    inside = [
        latency
        for latency, at in zip(loop.latencies_us, loop.answered_at_s, strict=True)
        if begin_s <= at < end_s
    ]
    began, ended = (*cpu, at_end)[:2] if cpu else (at_begin, at_end)
    return Result(
        answered=len(inside),
        total=len(loop.latencies_us),
        errors=loop.errors,
        error=loop.error,
        elapsed_s=elapsed_s,
        cpu_s=ended - began,
        latencies_us=inside,
    )


def main() -> None:
    """Answer each specification on stdin with its result."""
    for line in sys.stdin.buffer:
        result = load(Spec(**orjson.loads(line)))
        sys.stdout.buffer.write(orjson.dumps(asdict(result)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
