"""LangGraph's own savers, in-process: no gRPC, no network hop beyond the database's.

    python -m benchmarks.rivals.langgraph

Reads one specification a line and answers each with one line. The states are the same ones that
statekeep saves; each top-level field is a channel, and a save names the channels that changed.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import orjson
import uvloop
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks.growing import Which, growing_states
from benchmarks.states import make_states

SAVERS = 4
"""More than one saver beside the single one: two per core of the machine this was written on."""
POOL_SIZE = 20

Config = Literal["plain", "pipeline", "pool", "savers", "sqlite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to save with which saver.

    Attributes:
        config: `plain` is one connection, `pipeline` the same in pipeline mode, `pool` a pool of
            20, `savers` four savers with a connection each, `sqlite` a file.
        grow: Instead of measuring a rate, save the growing run or the `after` stream once, or
            `nothing`, which only makes the tables.
    """

    config: Config
    url: str
    recording: str
    concurrency: int = 16
    duration_s: float = 2.0
    warm_up_s: float = 0.3
    state_bytes: int = 10_240
    runs: int = 256
    grow: Literal["", "nothing"] | Which = ""


@asynccontextmanager
async def _saver(config: Config, url: str) -> AsyncIterator[Any]:
    dsn = url.replace("postgresql+asyncpg:", "postgresql:")
    if config == "sqlite":
        async with AsyncSqliteSaver.from_conn_string(url) as saver:
            yield saver
    elif config == "pool":
        arguments = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(
            dsn, min_size=POOL_SIZE, max_size=POOL_SIZE, kwargs=arguments, open=False
        ) as pool:
            yield AsyncPostgresSaver(pool)
    else:
        async with AsyncPostgresSaver.from_conn_string(dsn, pipeline=config == "pipeline") as saver:
            yield saver


class _Thread:
    """One thread of LangGraph's: the parent of the next checkpoint and the channels' versions."""

    def __init__(self, thread_id: str) -> None:
        self._config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        self._step = 0
        self._before: Mapping[str, Any] = {}
        self._versions: dict[str, str] = {}

    async def save(self, saver: Any, state: Mapping[str, Any]) -> None:
        self._step += 1
        version = f"{self._step:032}.0"
        changed = [
            name
            for name, value in state.items()
            if name not in self._before or self._before[name] is not value
        ]
        new = dict.fromkeys(changed, version)
        self._versions |= new
        self._before = state
        checkpoint = {
            "v": 4,
            "id": str(uuid.uuid4()),
            "ts": "2024-05-15T08:00:00+00:00",
            "channel_values": dict(state),
            "channel_versions": dict(self._versions),
            "versions_seen": {},
            "updated_channels": changed,
        }
        metadata = {"source": "loop", "step": self._step, "parents": {}}
        self._config = await saver.aput(self._config, checkpoint, metadata, new)


@cache
def _bodies(recording: str, state_bytes: int) -> Sequence[Sequence[Mapping[str, Any]]]:
    """States as LangGraph takes them, by conversation and step, made before the clock runs."""
    states = make_states(Path(recording), state_bytes=state_bytes)
    return [
        [orjson.loads(states.state(f"x-{number}", step)) for step in range(16)]
        for number in range(len(states.parts))
    ]


async def measure(spec: Spec) -> dict[str, Any]:
    """Save in a closed loop; count what was saved inside the measured time."""
    bodies = _bodies(spec.recording, spec.state_bytes)
    life = uuid.uuid4().hex
    threads = [_Thread(f"{life}-{number}") for number in range(max(spec.runs, spec.concurrency))]
    durations_us: list[int] = []
    async with AsyncExitStack() as stack:
        count = SAVERS if spec.config == "savers" else 1
        savers = [
            await stack.enter_async_context(_saver(spec.config, spec.url)) for _ in range(count)
        ]
        await savers[0].setup()
        begin_s = time.perf_counter() + spec.warm_up_s
        end_s = begin_s + spec.duration_s

        async def work(slot: int) -> None:
            saver, step = savers[slot % count], 0
            while True:
                for number in range(slot, len(threads), spec.concurrency):
                    before_s = time.perf_counter()
                    state = bodies[number % len(bodies)][step % 16]
                    await threads[number].save(saver, state)
                    now_s = time.perf_counter()
                    if now_s >= end_s:
                        return
                    if now_s >= begin_s:
                        durations_us.append(int((now_s - before_s) * 1e6))
                step += 1

        cpu_s = time.process_time()
        async with asyncio.TaskGroup() as group:
            for slot in range(spec.concurrency):
                group.create_task(work(slot))
        cpu_s = time.process_time() - cpu_s
    return {
        "answered": len(durations_us),
        "elapsed_s": spec.duration_s,
        "cpu_s": cpu_s * spec.duration_s / (spec.duration_s + spec.warm_up_s),
        "latencies_us": durations_us,
    }


async def grow(spec: Spec) -> dict[str, Any]:
    """Save growing runs once, in order, and say how many bytes of full JSON they were."""
    size = saves = 0
    async with _saver(spec.config, spec.url) as saver:
        await saver.setup()
        for run_id, states in _growing(spec):
            thread = _Thread(run_id)
            before: dict[str, Any] = {}
            for state in states:
                size += len(orjson.dumps(state))
                saves += 1
                before = _keep_unchanged(before, state)
                await thread.save(saver, before)
    return {"bytes": size, "saves": saves}


def _growing(spec: Spec) -> Iterable[tuple[str, Iterator[Mapping[str, Any]]]]:
    which: Which
    for which in ("growing", "after"):
        if which == spec.grow:
            return growing_states(Path(spec.recording), which)
    return ()


def _keep_unchanged(before: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """The state, with the very object of before where a channel holds an equal one."""
    return {
        name: before[name] if name in before and before[name] == value else value
        for name, value in state.items()
    }


def main(lines: Sequence[bytes] | None = None) -> None:
    """Answer each specification."""
    for line in lines or sys.stdin.buffer:
        spec = Spec(**orjson.loads(line))
        result = uvloop.run(grow(spec) if spec.grow else measure(spec))
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
