"""The transactions that take away: the deletion of a run, and the sweep of what has expired."""

from typing import Any

from sqlalchemy import Select, Table, and_, bindparam, delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.domain.model import RunKey
from statekeep_server.domain.transition import apply_delete
from statekeep_server.storage.appending import MOVE_HEAD, REQUEST, Appending, of_key
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.loading import minute_of
from statekeep_server.storage.rebasing import SNAPSHOT, Name, Rebasing, is_named, named_rows
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
        self._delete_snapshots = delete(snapshots).where(is_named(dialect, snapshots))

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
        found = (await connection.execute(self._expired, {"limit": limit})).all()
        names: list[Name] = [(row.tenant, row.run_id, row.version) for row in found]
        keys = {_key(name) for name in names}
        locked = await self._appending.lock_free(connection, sorted(keys)) if keys else {}
        names = [name for name in names if _key(name) in locked]
        if not names:
            return 0, 0
        staying = await self._rebasing.free(connection, names)
        going = [name for name in names if name not in staying]
        asked = self._dialect.asked_rows(SNAPSHOT, named_rows(going))
        gone = await connection.execute(self._delete_snapshots, asked)
        # A head that has moved on since does not name any of them.
        went = {(_key(name), name[2]) for name in going}
        moved = [
            {**of_key(key), **NOTHING_STANDS}
            for key, lock in locked.items()
            if lock.head and lock.head.snapshot_id and (key, lock.head.version) in went
        ]
        if moved:
            await connection.execute(MOVE_HEAD, moved)
        return gone.rowcount, len(moved)


def _key(name: Name) -> RunKey:
    return RunKey(name[0], name[1])


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


def _delete_old_results(limit: int, before_us: int) -> Any:
    key = [request_results.c[name] for name in REQUEST]
    oldest = (
        select(*key)
        .where(request_results.c.recorded_minute < minute_of(before_us))
        .order_by(request_results.c.recorded_minute)
        .limit(limit)
    )
    return delete(request_results).where(tuple_(*key).in_(oldest))
