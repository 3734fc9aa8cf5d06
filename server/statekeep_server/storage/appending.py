"""The locked save: many saves in one transaction, each decided under the lock of its head.

    1. lock the heads, in the order of their keys; a run without one gets one of version 0 first
    2. in a later statement, read the clock and what the request ids remember: a statement that
       waited for a lock sees the head as it became, but not a result committed meanwhile
    3. decide all saves (`deciding`), purely
    4. insert snapshots, audit records and results, move the heads

Two calls cannot wait for each other in a circle: heads of version 0 are inserted, sorted, before
any head is locked, and heads are locked sorted. Most runs have a head, so locking is tried first,
and a call that locked some heads and misses others starts over with inserting.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.domain.model import Head, RunKey
from statekeep_server.domain.transition import RecordedResult
from statekeep_server.domain.values import value_class
from statekeep_server.service.ports import Append
from statekeep_server.storage.deciding import Decided, RequestKey, decide_all, request_key
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.payloads import Framed, Payloads
from statekeep_server.storage.rows import (
    HEAD_COLUMNS,
    KEY,
    RESULT_COLUMNS,
    RESULT_DESCRIBED,
    Row,
    audit_row,
    head_row,
    new_head_row,
    read_head,
    read_result,
    result_row,
    snapshot_row,
)
from statekeep_server.storage.tables import audit_records, heads, request_results, snapshots
from statekeep_server.storage.transactions import StartOver

REQUEST = (*KEY, "request_id")

OF_KEY = and_(heads.c.tenant == bindparam("of_tenant"), heads.c.run_id == bindparam("of_run_id"))
MOVE_HEAD = update(heads).where(OF_KEY)


def of_key(key: RunKey) -> dict[str, object]:
    """Make the parameters of `OF_KEY`."""
    return {"of_tenant": key.tenant, "of_run_id": key.run_id}


@value_class()
class LockedHead:
    """A head under lock; `head` is None where the run was never written."""

    head: Head | None
    deleted: bool


@value_class()
class Appended:
    """What was decided and written, and how the payloads were framed; None for as they came."""

    decided: Decided
    framed: Framed | None


class Appending:
    """Runs locked saves on connections that are in a transaction."""

    def __init__(
        self, dialect: Dialect, new_id: Callable[[int], str], payloads: Payloads | None = None
    ) -> None:
        self._dialect = dialect
        self._payloads = payloads
        self._new_id = new_id
        self._locking = dialect.locking(_heads_of(dialect), heads)
        self._locking_free = dialect.locking_free(_heads_of(dialect), heads)
        self._remembered = _remembered(dialect)
        self._insert_heads = dialect.insert_or_ignore(heads)

    async def append(
        self,
        connection: AsyncConnection,
        appends: Sequence[Append],
        *,
        atomic: bool,
        insert_first: bool,
    ) -> Appended:
        """Decide and write saves; the caller commits, or rolls back if no row is written.

        Raises StartOver for another attempt, with `insert_first`; AtomicBatchFailed.
        """
        keys = sorted({append.save.command.key for append in appends})
        locked = await self._lock_all(connection, keys, insert_first=insert_first)
        now_us, earlier = await self._remember(connection, [request_key(a) for a in appends])
        decided = decide_all(
            appends,
            heads={key: lock.head for key, lock in locked.items() if lock.head},
            earlier=earlier,
            now_us=now_us,
            new_id=self._new_id,
            atomic=atomic,
        )
        framed = None
        if self._payloads is not None:
            before = {key: lock.head for key, lock in locked.items()}
            framed = await self._payloads.frame(decided.written, before)
        if decided.rows:
            never_written = [key for key, lock in locked.items() if lock.head is None]
            await _write(connection, decided, framed, never_written)
        return Appended(decided, framed)

    async def lock(
        self, connection: AsyncConnection, keys: Iterable[RunKey]
    ) -> dict[RunKey, LockedHead]:
        """Lock the heads that there are."""
        return await self._lock(connection, self._locking, keys)

    async def lock_free(
        self, connection: AsyncConnection, keys: Iterable[RunKey]
    ) -> dict[RunKey, LockedHead]:
        """Lock those heads that nobody else holds."""
        return await self._lock(connection, self._locking_free, keys)

    async def _lock(
        self, connection: AsyncConnection, statement: Select[Any], keys: Iterable[RunKey]
    ) -> dict[RunKey, LockedHead]:
        asked = self._dialect.asked_rows(KEY, [(key.tenant, key.run_id) for key in keys])
        rows = (await connection.execute(statement, asked)).mappings().all()
        locked = {}
        for row in rows:
            key = RunKey(row["tenant"], row["run_id"])
            locked[key] = LockedHead(read_head(key, row), row["deleted"])
        return locked

    async def _lock_all(
        self, connection: AsyncConnection, keys: Sequence[RunKey], *, insert_first: bool
    ) -> dict[RunKey, LockedHead]:
        if insert_first:
            await connection.execute(self._insert_heads, [new_head_row(key) for key in keys])
        locked = await self.lock(connection, keys)
        if len(locked) == len(keys):
            return locked
        if insert_first or (locked and self._dialect.locks_rows):
            # With `insert_first`: a refused save took its head of version 0 away in between.
            raise StartOver
        return await self._lock_all(connection, keys, insert_first=True)

    async def _remember(
        self, connection: AsyncConnection, requests: Sequence[RequestKey]
    ) -> tuple[int, dict[RequestKey, RecordedResult]]:
        """Read the clock and the results that are recorded; in this order they are committed."""
        asked = self._dialect.asked_rows(
            REQUEST, [(key.tenant, key.run_id, request_id) for key, request_id in requests]
        )
        rows = (await connection.execute(self._remembered, asked)).mappings().all()
        found = ((requests[self._dialect.position(row["position"])], row) for row in rows)
        results = {request: read_result(row) for request, row in found}
        return rows[0]["now_us"], {name: result for name, result in results.items() if result}


def snapshot_rows(decided: Decided, framed: Framed | None) -> list[Row]:
    """Make the rows of the snapshots that were decided."""
    snapshots_written = [written.snapshot for written in decided.written]
    if framed is None:
        return [snapshot_row(snapshot) for snapshot in snapshots_written]
    pairs = zip(snapshots_written, framed.frames, strict=True)
    return [snapshot_row(snapshot, frame) for snapshot, frame in pairs]


async def _write(
    connection: AsyncConnection,
    decided: Decided,
    framed: Framed | None,
    never_written: Iterable[RunKey],
) -> None:
    if decided.written:
        new = snapshot_rows(decided, framed)
        await connection.execute(insert(snapshots), new)
        records = [audit_row(written.audit) for written in decided.written]
        await connection.execute(insert(audit_records), records)
    if decided.results:
        results = [
            result_row(key, recorded, decided.now_us)
            for (key, _), recorded in decided.results.items()
        ]
        await connection.execute(insert(request_results), results)
    moved = [
        {
            **of_key(key),
            **head_row(move.head),
            "thread_id": move.newest.thread_id,
            "user_id": move.newest.user_id,
            "deleted": False,
        }
        for key, move in decided.heads.items()
        if move.newest
    ]
    if moved:
        await connection.execute(MOVE_HEAD, moved)
    raised = [
        {**of_key(key), "writer_sequence": move.head.writer_sequence}
        for key, move in decided.heads.items()
        if not move.newest
    ]
    if raised:
        await connection.execute(MOVE_HEAD, raised)
    unused = [of_key(key) for key in never_written if key not in decided.heads]
    if unused:
        await connection.execute(delete(heads).where(OF_KEY), unused)


def _heads_of(dialect: Dialect) -> Select[Any]:
    asked = dialect.asked(*KEY)
    same = and_(heads.c.tenant == asked.c.tenant, heads.c.run_id == asked.c.run_id)
    return (
        select(heads.c.tenant, heads.c.run_id, heads.c.deleted, *HEAD_COLUMNS)
        .select_from(asked.join(heads, same))
        .order_by(heads.c.tenant, heads.c.run_id)
    )


def _remembered(dialect: Dialect) -> Select[Any]:
    asked = dialect.asked(*REQUEST)
    same = and_(*(request_results.c[name] == asked.c[name] for name in REQUEST))
    return select(asked.c.position, dialect.now_us.label("now_us"), *RESULT_COLUMNS).select_from(
        asked.outerjoin(request_results, same).outerjoin(audit_records, RESULT_DESCRIBED)
    )
