"""A durable save in a group and nothing else: little code does what any service has to do.

The state is brought into a sorted form and hashed, groups of up to 64 are written by one statement,
which moves the heads and adds snapshots and audit records, and each save is answered after its
commit. Nothing is validated, compared, skipped, compressed or repeated, no request is remembered,
and nothing is measured. It is a yardstick and no bound: nobody has tuned it.
"""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from benchmarks.rivals.rows import SCHEMA, dsn
from statekeep.v1 import agent_state_service_pb2 as messages

MAX_GROUP = 64

SAVE_ALL = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) AS given (run_id, snapshot_id, state)
), head AS (
    INSERT INTO raw_heads SELECT run_id, 1, snapshot_id FROM given
    ON CONFLICT (run_id) DO UPDATE
    SET version = raw_heads.version + 1, snapshot_id = excluded.snapshot_id
    RETURNING run_id, version
), snapshot AS (
    INSERT INTO raw_snapshots
    SELECT run_id, version, snapshot_id, state FROM given JOIN head USING (run_id)
), record AS (
    INSERT INTO raw_audit (run_id, version, snapshot_id)
    SELECT run_id, version, snapshot_id FROM given JOIN head USING (run_id)
)
SELECT run_id, version FROM head
"""

_Waiting = tuple[str, str, bytes, "asyncio.Future[int]"]


class Least:
    """Saves in groups: what queued while one was committed forms the next."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()

    async def save(
        self, request: messages.SaveAgentStateRequest
    ) -> messages.SaveAgentStateResponse:
        """Persist a state."""
        state = orjson.dumps(orjson.loads(request.state.data), option=orjson.OPT_SORT_KEYS)
        state_hash = hashlib.sha256(state).digest()
        snapshot_id = str(uuid.uuid4())
        version = await self.write(request.run_id, snapshot_id, state)
        return messages.SaveAgentStateResponse(
            snapshot_id=snapshot_id, version=version, state_sha256=state_hash
        )

    async def write(self, run_id: str, snapshot_id: str, state: bytes) -> int:
        """Write a state with the next group; return its version after the commit."""
        saved: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append((run_id, snapshot_id, state, saved))
        self._wake.set()
        return await saved

    async def commit_groups(self) -> None:
        """Commit what waits, for ever. A statement takes one save of each run."""
        while True:
            await self._wake.wait()
            # A few turns of the event loop bring what is on its way.
            for _ in range(4):
                await asyncio.sleep(0)
            group: dict[str, _Waiting] = {}
            left: list[_Waiting] = []
            for waiting in self._queue:
                if len(group) == MAX_GROUP or waiting[0] in group:
                    left.append(waiting)
                else:
                    group[waiting[0]] = waiting
            self._queue = left
            if not left:
                self._wake.clear()
            await self._commit(list(group.values()))

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        run_ids, snapshot_ids, states, _ = zip(*group, strict=True)
        try:
            rows = await self._connection.fetch(SAVE_ALL, run_ids, snapshot_ids, states)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            for _, _, _, saved in group:
                if not saved.done():
                    saved.set_exception(error)
            return
        versions = dict(rows)
        for run_id, _, _, saved in group:
            if not saved.done():  # its caller went away
                saved.set_result(versions[run_id])


@asynccontextmanager
async def open_least(url: str) -> AsyncIterator[Least]:
    """Make the tables, open the connection, and commit."""
    connection = await asyncpg.connect(dsn(url))
    await connection.execute(SCHEMA)
    least = Least(connection)
    committing = asyncio.create_task(least.commit_groups())
    try:
        yield least
    finally:
        committing.cancel()
        await connection.close()
