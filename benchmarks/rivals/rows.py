"""asyncpg and nothing else: one statement per save or load, on a connection of its own.

Behind the gRPC front it shows what a raw row costs; alone, as a worker that reads a specification
from each line, it is the floor of a lone durable save.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import uvloop

from benchmarks.states import make_states
from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as messages

SCHEMA = """
CREATE TABLE IF NOT EXISTS raw_heads (
    run_id text PRIMARY KEY, version bigint NOT NULL, snapshot_id text NOT NULL);
CREATE TABLE IF NOT EXISTS raw_snapshots (
    run_id text NOT NULL, version bigint NOT NULL, snapshot_id text NOT NULL,
    state bytea NOT NULL, PRIMARY KEY (run_id, version));
ALTER TABLE raw_snapshots ALTER COLUMN state SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS raw_audit (
    run_id text NOT NULL, version bigint NOT NULL, snapshot_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (run_id, version));
"""

SAVE = """
WITH head AS (
    INSERT INTO raw_heads VALUES ($1, 1, $2)
    ON CONFLICT (run_id) DO UPDATE SET version = raw_heads.version + 1, snapshot_id = $2
    RETURNING version
), snapshot AS (
    INSERT INTO raw_snapshots SELECT $1, version, $2, $3 FROM head
)
INSERT INTO raw_audit (run_id, version, snapshot_id) SELECT $1, version, $2 FROM head
RETURNING version
"""

LOAD = "SELECT state, snapshot_id FROM raw_snapshots WHERE run_id = $1 AND version = $2"


class Rows:
    """Raw rows over a few pinned connections."""

    def __init__(self, connections: list[Any]) -> None:
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        for connection in connections:
            self._free.put_nowait(connection)

    async def save(
        self, request: messages.SaveAgentStateRequest
    ) -> messages.SaveAgentStateResponse:
        """Persist a state in one statement."""
        snapshot_id = str(uuid.uuid4())
        connection = await self._free.get()
        try:
            version = await connection.fetchval(
                SAVE, request.run_id, snapshot_id, request.state.data
            )
        finally:
            self._free.put_nowait(connection)
        return messages.SaveAgentStateResponse(snapshot_id=snapshot_id, version=version)

    async def load(
        self, request: messages.LoadAgentStateRequest
    ) -> messages.LoadAgentStateResponse:
        """Read one row by its key."""
        connection = await self._free.get()
        try:
            row = await connection.fetchrow(LOAD, request.run_id, request.version)
        finally:
            self._free.put_nowait(connection)
        return messages.LoadAgentStateResponse(
            state=agent_state_pb2.State(data=row["state"]), head_version=request.version
        )


@asynccontextmanager
async def open_rows(url: str, *, connections: int = 4) -> AsyncIterator[Rows]:
    """Make the tables and open the connections."""
    opened = [await asyncpg.connect(dsn(url)) for _ in range(connections)]
    await opened[0].execute(SCHEMA)
    try:
        yield Rows(opened)
    finally:
        for connection in opened:
            await connection.close()


def dsn(url: str) -> str:
    """Write a URL as the driver takes it."""
    return url.replace("postgresql+asyncpg:", "postgresql:")


@dataclass(frozen=True, slots=True)
class LoneSpec:
    """How the worker saves alone: one call at a time."""

    url: str
    recording: str
    prefix: str
    duration_s: float
    state_bytes: int
    runs: int = 64


async def save_alone(spec: LoneSpec) -> list[int]:
    """Save one state after another on one connection; return each duration in microseconds."""
    states = make_states(Path(spec.recording), state_bytes=spec.state_bytes)
    connection = await asyncpg.connect(dsn(spec.url))
    try:
        await connection.execute(SCHEMA)
        statement = await connection.prepare(SAVE)
        durations_us: list[int] = []
        end_s = time.perf_counter() + spec.duration_s
        number = 0
        while (began_s := time.perf_counter()) < end_s:
            run_id = f"{spec.prefix}-{number % spec.runs}"
            state = states.state(run_id, number // spec.runs)
            began_s = time.perf_counter()
            await statement.fetchval(run_id, str(uuid.uuid4()), state)
            durations_us.append(int((time.perf_counter() - began_s) * 1e6))
            number += 1
    finally:
        await connection.close()
    return durations_us


def main() -> None:
    """Answer each specification on stdin with the durations."""
    for line in sys.stdin.buffer:
        durations_us = uvloop.run(save_alone(LoneSpec(**orjson.loads(line))))
        sys.stdout.buffer.write(orjson.dumps({"latencies_us": durations_us}) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
