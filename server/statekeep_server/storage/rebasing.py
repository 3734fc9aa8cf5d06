"""Before snapshots go: what builds on them is framed anew, so that no chain ever breaks."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    RowMapping,
    Select,
    Update,
    and_,
    bindparam,
    cast,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from statekeep_server.storage.chains import OF_RUN, Described, chained, select_chain
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.frames import CorruptFrame, Frame, StoredFrame, decode, encode
from statekeep_server.storage.tables import snapshots

logger = logging.getLogger("statekeep.storage")

SNAPSHOT = ("tenant", "run_id", "version")

Name = tuple[str, str, int]
"""The tenant, run and version of a snapshot."""


class Rebasing:
    """Frames snapshots anew on connections that hold the locks of their heads."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._dependents = _dependents(dialect)
        self._chain = select_chain(
            Described(dialect), *OF_RUN, snapshots.c.version == bindparam("selected")
        )

    async def free(self, connection: AsyncConnection, going: Sequence[Name]) -> set[Name]:
        """Let nothing build on the snapshots that are going; return those that must stay.

        What a snapshot is built of stays when it cannot be read: taking that away would destroy
        what may be left to repair.
        """
        asked = self._dialect.asked_rows(SNAPSHOT, named_rows(going))
        rows = (await connection.execute(self._dependents, asked)).mappings().all()
        gone = set(going)
        needed: set[Name] = set()
        for row in rows:
            if (row["tenant"], row["run_id"], row["version"]) in gone:
                continue  # goes too
            of_row = {"tenant": row["tenant"], "run_id": row["run_id"], "selected": row["version"]}
            chain = (await connection.execute(self._chain, of_row)).mappings().all()
            try:
                await self._stand_alone(connection, row, chain)
            except CorruptFrame:
                logger.exception("A snapshot cannot be read: what it builds on stays")
                needed |= {
                    (row["tenant"], row["run_id"], one["snapshots_version"]) for one in chain
                }
        return gone & needed

    async def _stand_alone(
        self, connection: AsyncConnection, row: RowMapping, chain: Sequence[RowMapping]
    ) -> None:
        state_sha256 = next(one["audit_records_state_sha256"] for one in chain if not one["place"])
        frame = await asyncio.to_thread(_alone, chained(chain), state_sha256)
        await connection.execute(_refresh(row), _columns(frame))


def _alone(chain: Sequence[StoredFrame], state_sha256: bytes) -> Frame:
    return encode(decode(chain, state_sha256))


def _columns(frame: Frame) -> dict[str, object]:
    return {
        "encoding": frame.encoding,
        "base_version": None,
        "depth": 0,
        "state": frame.data,
    }


def _refresh(row: RowMapping) -> Update:
    return update(snapshots).where(
        snapshots.c.tenant == row["tenant"],
        snapshots.c.run_id == row["run_id"],
        snapshots.c.version == row["version"],
    )


def named_rows(names: Sequence[Name]) -> list[list[str]]:
    """Make the rows that ask for snapshots: asked rows are texts."""
    return [[tenant, run_id, str(version)] for tenant, run_id, version in names]


def is_named(dialect: Dialect, table: FromClause) -> ColumnElement[bool]:
    """Whether a snapshot is one of those that are asked for."""
    asked = dialect.asked(*SNAPSHOT)
    named = select(asked.c.tenant, asked.c.run_id, cast(asked.c.version, BigInteger))
    return tuple_(*(table.c[name] for name in SNAPSHOT)).in_(named)


def _dependents(dialect: Dialect) -> Select[Any]:
    base = snapshots.alias("base")
    same_run = and_(base.c.tenant == snapshots.c.tenant, base.c.run_id == snapshots.c.run_id)
    builds_on = and_(same_run, snapshots.c.base_version == base.c.version)
    return (
        select(*(snapshots.c[name] for name in SNAPSHOT))
        .select_from(base.join(snapshots, builds_on))
        .where(is_named(dialect, base))
    )
