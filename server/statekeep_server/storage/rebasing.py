"""Before snapshots go: what builds on them is framed anew, so that no chain ever breaks."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, Update, and_, bindparam, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.frames import CorruptFrame, Frame, StoredFrame, decode, encode
from statekeep_server.storage.reading import chained, select_chain
from statekeep_server.storage.tables import snapshots

logger = logging.getLogger("statekeep.storage")

SNAPSHOT = ("tenant", "run_id", "snapshot_id")

Name = tuple[str, ...]
"""The tenant, run and id of a snapshot."""


class Rebasing:
    """Frames snapshots anew on connections that hold the locks of their heads."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._dependents = _dependents(dialect)
        self._chain = select_chain(snapshots.c.version == bindparam("selected"))

    async def free(self, connection: AsyncConnection, going: Sequence[Name]) -> set[Name]:
        """Let nothing build on the snapshots that are going; return those that must stay.

        A run's snapshots stay when one that builds on them cannot be read: taking them away would
        destroy what may be left to repair.
        """
        asked = self._dialect.asked_rows(SNAPSHOT, going)
        rows = (await connection.execute(self._dependents, asked)).mappings().all()
        gone = set(going)
        broken = set()
        for row in rows:
            if (row["tenant"], row["run_id"], row["snapshot_id"]) in gone:
                continue  # goes too
            try:
                await self._stand_alone(connection, row)
            except CorruptFrame:
                logger.exception("A snapshot cannot be read: what it builds on stays")
                broken.add((row["tenant"], row["run_id"]))
        return {name for name in going if name[:2] in broken}

    async def _stand_alone(self, connection: AsyncConnection, row: RowMapping) -> None:
        of_row = {"tenant": row["tenant"], "run_id": row["run_id"], "selected": row["version"]}
        chain = (await connection.execute(self._chain, of_row)).mappings().all()
        frame = await asyncio.to_thread(_alone, chained(chain))
        await connection.execute(_refresh(row), _columns(frame))


def _alone(chain: Sequence[StoredFrame]) -> Frame:
    return encode(decode(chain))


def _columns(frame: Frame) -> dict[str, object]:
    return {
        "encoding": frame.encoding,
        "base_version": None,
        "base_sha256": None,
        "depth": 0,
        "state": frame.data,
    }


def _refresh(row: RowMapping) -> Update:
    return update(snapshots).where(
        snapshots.c.tenant == row["tenant"],
        snapshots.c.run_id == row["run_id"],
        snapshots.c.version == row["version"],
    )


def _dependents(dialect: Dialect) -> Select[Any]:
    asked = dialect.asked(*SNAPSHOT)
    base = snapshots.alias("base")
    named = select(*(asked.c[name] for name in SNAPSHOT))
    same_run = and_(base.c.tenant == snapshots.c.tenant, base.c.run_id == snapshots.c.run_id)
    return (
        select(
            *(snapshots.c[name] for name in (*SNAPSHOT, "version")),
        )
        .select_from(
            base.join(snapshots, and_(same_run, snapshots.c.base_version == base.c.version))
        )
        .where(tuple_(*(base.c[name] for name in SNAPSHOT)).in_(named))
    )
