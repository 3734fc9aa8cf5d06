"""The transactions that take away: the deletion of a run, and the sweep of what has expired."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, Table, and_, bindparam, delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.domain.model import RunKey
from statekeep_server.domain.transition import apply_delete
from statekeep_server.storage.appending import MOVE_HEAD, REQUEST, Appending, of_key
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.rebasing import SNAPSHOT, Rebasing
from statekeep_server.storage.rows import audit_row, head_row
from statekeep_server.storage.tables import audit_records, request_results, snapshots
from statekeep_server.storage.transactions import Done

NOTHING_STANDS: dict[str, object] = {
    "snapshot_id": None,
    "comparison_hash": None,
    "state_sha256": None,
    "expires_at_us": None,
}


class Removing:
    """Runs deletions and sweeps on connections that are in a transaction."""

    def __init__(self, dialect: Dialect, appending: Appending) -> None:
        self._dialect = dialect
        self._appending = appending
        self._rebasing = Rebasing(dialect)
        self._expired = _expired(dialect)
        self._delete_snapshots = _delete_named(dialect, snapshots, SNAPSHOT)

    async def delete_run(self, connection: AsyncConnection, key: RunKey) -> Done[int]:
        """Delete a run; answer with how many snapshots went."""
        locked = (await self._appending.lock(connection, [key])).get(key)
        if locked is None or locked.head is None or locked.deleted:
            return Done(0, 0)
        # In a statement of its own: this one was sent after the lock was obtained.
        now_us = (await connection.execute(select(self._dialect.now_us))).scalar_one()
        tombstone, record = apply_delete(locked.head, now_us=now_us)
        gone = [
            (await connection.execute(_delete_of_run(table), of_key(key))).rowcount
            for table in (snapshots, request_results)
        ]
        await connection.execute(insert(audit_records), [audit_row(record)])
        move = {**of_key(key), **head_row(tombstone), "deleted": True}
        await connection.execute(MOVE_HEAD, [move])
        return Done(gone[0], sum(gone) + 2)

    async def sweep(
        self, connection: AsyncConnection, *, limit: int, request_results_before_us: int
    ) -> Done[int]:
        """Delete expired snapshots, then old results; answer with how many rows went."""
        gone, moved = await self._sweep_snapshots(connection, limit)
        if gone < limit:
            old = _delete_old_results(limit - gone, request_results_before_us)
            gone += (await connection.execute(old)).rowcount
        return Done(gone, gone + moved)

    async def _sweep_snapshots(self, connection: AsyncConnection, limit: int) -> tuple[int, int]:
        """Delete up to `limit` expired snapshots; return how many, and how many heads moved.

        Runs that somebody is writing are left for the next sweep: nobody waits for this one.
        """
        found = (await connection.execute(self._expired, {"limit": limit})).mappings().all()
        keys = {_key(row) for row in found}
        locked = await self._appending.lock_free(connection, sorted(keys)) if keys else {}
        expired = [row for row in found if _key(row) in locked]
        if not expired:
            return 0, 0
        names = [tuple(str(row[name]) for name in SNAPSHOT) for row in expired]
        staying = await self._rebasing.free(connection, names)
        expired = [row for row, name in zip(expired, names, strict=True) if name not in staying]
        gone = await connection.execute(
            self._delete_snapshots,
            self._dialect.asked_rows(SNAPSHOT, [[row[n] for n in SNAPSHOT] for row in expired]),
        )
        # A head that has moved on since does not name any of them.
        went = {(_key(row), row["snapshot_id"]) for row in expired}
        moved = [
            {**of_key(key), **NOTHING_STANDS}
            for key, lock in locked.items()
            if lock.head and (key, lock.head.snapshot_id) in went
        ]
        if moved:
            await connection.execute(MOVE_HEAD, moved)
        return gone.rowcount, len(moved)


def _key(row: RowMapping) -> RunKey:
    return RunKey(row["tenant"], row["run_id"])


def _expired(dialect: Dialect) -> Select[Any]:
    return (
        select(*(snapshots.c[name] for name in SNAPSHOT))
        .where(snapshots.c.expires_at_us <= dialect.now_us)
        .order_by(snapshots.c.expires_at_us)
        .limit(bindparam("limit"))
    )


def _delete_of_run(table: Table) -> Any:
    return delete(table).where(
        and_(
            table.c.tenant == bindparam("of_tenant"),
            table.c.run_id == bindparam("of_run_id"),
        )
    )


def _delete_named(dialect: Dialect, table: Table, names: Sequence[str]) -> Any:
    asked = dialect.asked(*names)
    named = select(*(asked.c[name] for name in names))
    return delete(table).where(tuple_(*(table.c[name] for name in names)).in_(named))


def _delete_old_results(limit: int, before_us: int) -> Any:
    key = [request_results.c[name] for name in REQUEST]
    oldest = (
        select(*key)
        .where(request_results.c.recorded_at_us < before_us)
        .order_by(request_results.c.recorded_at_us)
        .limit(limit)
    )
    return delete(request_results).where(tuple_(*key).in_(oldest))
