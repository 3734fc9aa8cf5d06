"""One client process of a load test.

    python -m statekeep_server.bench.load_client

Reads a line with its part and how to reach the server (never from the command line, where others
see the token), prepares its runs, says `ready`, waits for a second line, and loads the server.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import uvloop

from statekeep import AsyncClient, StatekeepError
from statekeep_server.bench.load_plan import Kind, Part
from statekeep_server.bench.load_states import LoadStates
from statekeep_server.service.histogram import Histogram

JSON = "application/json"
PREPARED_AT_ONCE = 32
REST_AFTER_ERROR_S = 0.05
"""A server that refuses at once would otherwise be asked as fast as the client can."""


class Tally:
    """What was seen inside the measured time."""

    def __init__(self, part: Part) -> None:
        self.begin_s = time.perf_counter() + part.warm_up_s
        self.end_s = self.begin_s + part.duration_s
        self.durations = {name: Histogram() for name in dict.fromkeys(part.kind.turns)}
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.first_errors: dict[str, str] = {}
        self.late = 0

    def answered(self, name: str, outcome: str, duration_s: float) -> None:
        """Count an answer that came now."""
        if self.begin_s <= time.perf_counter() < self.end_s:
            self.durations[name].record(duration_s)
            self.outcomes[outcome] += 1

    def failed(self, name: str, error: StatekeepError) -> None:
        """Count a failure, whenever it came."""
        kind = type(error).__name__
        self.errors[name, kind] += 1
        self.first_errors.setdefault(kind, error.message)

    def to_json(self, *, cpu_share: float) -> dict[str, Any]:
        """What the coordinator reads."""
        return {
            "durations": {name: asdict(each.durations()) for name, each in self.durations.items()},
            "outcomes": dict(self.outcomes),
            "errors": [[*key, count] for key, count in self.errors.items()],
            "first_errors": self.first_errors,
            "late": self.late,
            "cpu_share": cpu_share,
        }


class Caller:
    """Makes the calls of a part, each kind over its runs in turn."""

    def __init__(self, client: AsyncClient, part: Part, states: LoadStates) -> None:
        self._client, self._part, self._states = client, part, states
        self._numbers = {name: count() for name in part.kind.turns}
        self._calls: dict[str, Callable[[int], Awaitable[str]]] = {
            "save": self._save,
            "skip": self._skip,
            "load": self._load,
        }

    async def prepare(self) -> None:
        """Save what is to be skipped and loaded. Raises StatekeepError."""
        if self._part.kind is Kind.SAVE:
            return
        waiting = iter(range(self._part.runs))

        async def work() -> None:
            for number in waiting:
                await self._keep(self._part.kept(number), number, 0, heartbeat=0)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(PREPARED_AT_ONCE, self._part.runs)):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def call(self, name: str, due_s: float, tally: Tally) -> None:
        """Make the next call of a kind; its duration counts from when it was due."""
        try:
            outcome = await self._calls[name](next(self._numbers[name]))
        except StatekeepError as error:
            tally.failed(name, error)
            await asyncio.sleep(REST_AFTER_ERROR_S)
        else:
            tally.answered(name, outcome, time.perf_counter() - due_s)

    async def _save(self, i: int) -> str:
        number = i % self._part.runs
        run_id = self._part.moving(number)
        return await self._keep(run_id, number, i // self._part.runs, heartbeat=0)

    async def _skip(self, i: int) -> str:
        number = i % self._part.runs
        return await self._keep(self._part.kept(number), number, 0, heartbeat=1 + i)

    async def _load(self, i: int) -> str:
        await self._client.load(self._part.kept(i % self._part.runs))
        return "LOADED"

    async def _keep(self, run_id: str, number: int, step: int, *, heartbeat: int) -> str:
        state = self._states.state(run_id, number, step, heartbeat=heartbeat)
        result = await self._client.save(run_id, state, checkpoint_type="AUTO", content_type=JSON)
        return str(result.outcome)


async def closed_loop(part: Part, caller: Caller, tally: Tally) -> None:
    """Let an answer begin the next call."""

    async def work(slot: int) -> None:
        for turn in count(slot):  # not all callers of a mixed load begin with the same kind
            if (due_s := time.perf_counter()) >= tally.end_s:
                return
            await caller.call(part.kind.turns[turn % len(part.kind.turns)], due_s, tally)

    async with asyncio.TaskGroup() as group:
        for slot in range(part.concurrency):
            group.create_task(work(slot))


async def open_loop(part: Part, caller: Caller, tally: Tally, rate: float) -> None:
    """Begin calls at a fixed rate.

    A call that has to wait, because too many are under way or this process was busy, counts from
    when it was due: an agent would have waited as long.
    """
    began_s = time.perf_counter()
    room = asyncio.Semaphore(part.concurrency)

    async def one(name: str, due_s: float) -> None:
        try:
            await caller.call(name, due_s, tally)
        finally:
            room.release()

    async with asyncio.TaskGroup() as group:
        for number in count():
            due_s = began_s + number / rate
            if due_s >= tally.end_s:
                return
            if (early_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            if room.locked():
                tally.late += 1
            await room.acquire()
            if time.perf_counter() >= tally.end_s:
                # It was due, and never began: the rate was too much.
                tally.late += max(1, round((tally.end_s - due_s) * rate))
                return
            group.create_task(one(part.kind.turns[number % len(part.kind.turns)], due_s))


async def run(order: dict[str, Any], start: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Do one part.

    Args:
        order: The part, and the arguments of the client.
        start: Says that all is prepared, and returns when the others are too.
    """
    part = Part.from_json(order["part"])
    states = LoadStates(state_bytes=part.state_bytes)
    connection = order["connection"]
    tls = Path(tls_ca) if (tls_ca := connection["tls_ca"]) else (connection["tls"] or None)
    async with AsyncClient(
        connection["target"],
        token=connection["token"],
        tls=tls,
        timeout_s=connection["timeout_s"],
        insecure=connection["insecure"],
    ) as client:
        caller = Caller(client, part, states)
        await caller.prepare()
        await start()
        tally = Tally(part)
        cpu_s, began_s = time.process_time(), time.perf_counter()
        if part.rate is None:
            await closed_loop(part, caller, tally)
        else:
            await open_loop(part, caller, tally, part.rate)
        elapsed_s = time.perf_counter() - began_s
        return tally.to_json(cpu_share=(time.process_time() - cpu_s) / elapsed_s)


def _tell(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n")
    sys.stdout.buffer.flush()


async def _ready() -> None:
    _tell({"ready": True})
    # A thread: the end of the pipe, when the coordinator is gone, ends the wait as well.
    if not await asyncio.to_thread(sys.stdin.buffer.readline):
        raise SystemExit(1)


def main() -> None:
    """Do the part that stdin says, and tell what was seen."""
    order = orjson.loads(sys.stdin.buffer.readline())
    try:
        told = uvloop.run(run(order, _ready))
    except StatekeepError as error:
        told = {"failed": error.message}
    _tell(told)


if __name__ == "__main__":
    main()
