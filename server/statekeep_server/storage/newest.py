"""The newest states of many runs, read in one statement.

Each row is read anew, so a load sees every commit before it. A payload that this server still has
in memory is not sent again: the row says whether it is the one that stands. PostgreSQL only.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, Text, and_, case, literal_column, null
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import LoadedState, Newest, RunKey, Snapshot
from statekeep_server.storage.chains import (
    Described,
    FoundState,
    Rows,
    is_live,
    read_loaded,
    select_chain,
)
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.tables import SnapshotId, heads, snapshots

MAX_STATE_BYTES = 256 * 1024
"""Larger states are loaded alone: a whole batch of them would be too much at once."""

Answer = FoundState | LoadedState | StateError
"""What was read, what was in memory, or what is wrong."""


class NewestStates:
    """Makes the statement and reads its answer."""

    def __init__(self, postgresql: Dialect) -> None:
        compiled: Any = _chain(postgresql).compile(
            # SQLAlchemy gives its dialects no types.
            dialect=dialect.dialect(),  # type: ignore[no-untyped-call]
            compile_kwargs={"literal_binds": True},
        )
        self.text = f"""
SELECT asked.position, chain.*
FROM unnest($1::text[], $2::text[], $3::uuid[])
  WITH ORDINALITY AS asked(tenant, run_id, remembered, position)
CROSS JOIN LATERAL ({compiled}) AS chain
"""  # noqa: S608  # made of our own tables

    def arguments(
        self, keys: Sequence[RunKey], remembered: Mapping[RunKey, Snapshot]
    ) -> list[list[str] | list[str | None]]:
        """Make the arrays that the statement takes."""
        ids = [remembered[key].snapshot_id if key in remembered else None for key in keys]
        return [[key.tenant for key in keys], [key.run_id for key in keys], ids]

    def read(
        self, keys: Sequence[RunKey], remembered: Mapping[RunKey, Snapshot], rows: Rows
    ) -> list[Answer | None]:
        """Read each run's state; None for what is to be loaded alone.

        A corrupt state is its run's error and no other's.
        """
        by_key: dict[int, list[RowMapping]] = {}
        for row in rows:
            by_key.setdefault(row["position"] - 1, []).append(row)
        return [_read(key, remembered.get(key), by_key.get(i)) for i, key in enumerate(keys)]


def _read(key: RunKey, remembered: Snapshot | None, rows: Rows | None) -> Answer | None:
    if not rows:
        return None
    row = min(rows, key=itemgetter("place"))
    if remembered is not None and str(row["audit_records_snapshot_id"]) == remembered.snapshot_id:
        return LoadedState(snapshot=remembered, head_version=row["head_version"])
    try:
        return read_loaded(key, Newest(), rows)
    except StateError as error:
        return error


def _chain(postgresql: Dialect) -> Select[Any]:
    """Select a run's newest live snapshot and the bases of its frame, as `asked` names them."""
    tenant: ColumnElement[str] = literal_column("asked.tenant", Text)
    run_id: ColumnElement[str] = literal_column("asked.run_id", Text)
    described = Described(postgresql)
    is_remembered = described.audit.c.snapshot_id == literal_column("asked.remembered", SnapshotId)
    of_run = and_(heads.c.tenant == tenant, heads.c.run_id == run_id)
    return select_chain(
        described,
        tenant,
        run_id,
        and_(of_run, is_live(postgresql)),
        state=case((is_remembered, null()), else_=snapshots.c.state),
        max_state_bytes=MAX_STATE_BYTES,
    )
