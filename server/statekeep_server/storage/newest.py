"""The newest states of many runs, read in one statement.

Each row is read anew, so a load sees every commit before it. A payload that this server still has
in memory is not sent again: the row says whether it is the one that stands. PostgreSQL only.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    RowMapping,
    Select,
    Text,
    and_,
    case,
    literal_column,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import LoadedState, Newest, RunKey, Snapshot
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.reading import MAX_CHAIN, is_live, read_loaded
from statekeep_server.storage.rows import FRAME_COLUMNS, SNAPSHOT_COLUMNS
from statekeep_server.storage.tables import heads, snapshots

MAX_STATE_BYTES = 256 * 1024
"""Larger states are loaded alone: a whole batch of them would be too much at once."""

Rows = Sequence[RowMapping]
"""The driver's rows, which are read by name as SQLAlchemy's are."""


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
FROM unnest($1::text[], $2::text[], $3::text[])
  WITH ORDINALITY AS asked(tenant, run_id, remembered, position)
CROSS JOIN LATERAL ({compiled}) AS chain
"""  # noqa: S608  # made of our own tables

    def arguments(
        self, keys: Sequence[RunKey], remembered: Mapping[RunKey, Snapshot]
    ) -> list[list[str]]:
        """Make the arrays that the statement takes."""
        ids = [remembered[key].snapshot_id if key in remembered else "" for key in keys]
        return [[key.tenant for key in keys], [key.run_id for key in keys], ids]

    def read(
        self, keys: Sequence[RunKey], remembered: Mapping[RunKey, Snapshot], rows: Rows
    ) -> list[tuple[LoadedState | StateError, int] | None]:
        """Read each run's state, and the depth of its frame; None for what is to be loaded alone.

        A corrupt state is its run's error and no other's.
        """
        by_key: dict[int, list[RowMapping]] = {}
        for row in rows:
            by_key.setdefault(row["position"] - 1, []).append(row)
        return [_read(key, remembered.get(key), by_key.get(i)) for i, key in enumerate(keys)]


def _read(
    key: RunKey, remembered: Snapshot | None, rows: Rows | None
) -> tuple[LoadedState | StateError, int] | None:
    if not rows:
        return None
    row = min(rows, key=itemgetter("place"))
    depth: int = row["snapshots_depth"]
    if remembered is not None and row["snapshots_snapshot_id"] == remembered.snapshot_id:
        return LoadedState(snapshot=remembered, head_version=row["head_version"]), depth
    try:
        return read_loaded(key, Newest(), rows), depth
    except StateError as error:
        return error, depth


def _chain(postgresql: Dialect) -> Select[Any]:
    """Select a run's newest live snapshot and the bases of its frame, as `asked` names them."""
    tenant: ColumnElement[str] = literal_column("asked.tenant", Text)
    run_id: ColumnElement[str] = literal_column("asked.run_id", Text)
    remembered = snapshots.c.snapshot_id == literal_column("asked.remembered", Text)
    of_run = and_(snapshots.c.tenant == tenant, snapshots.c.run_id == run_id)
    columns = [
        case((remembered, null()), else_=column).label("snapshots_state")
        if column.key == "snapshots_state"
        else column
        for column in (*SNAPSHOT_COLUMNS, *FRAME_COLUMNS)
    ]
    newest = (
        select(heads.c.version.label("head_version"), *columns)
        .select_from(
            heads.join(
                snapshots,
                and_(heads.c.tenant == snapshots.c.tenant, heads.c.run_id == snapshots.c.run_id),
            )
        )
        .where(of_run, heads.c.tenant == tenant, heads.c.run_id == run_id, is_live(postgresql))
        .order_by(snapshots.c.version.desc())
        .limit(1)
        .subquery("newest")
    )
    chain = (
        select(literal_column("0", Integer).label("place"), *newest.c)
        .where(newest.c.snapshots_state_bytes <= MAX_STATE_BYTES)
        .cte("chain", recursive=True)
    )
    base_version = chain.c.snapshots_base_version
    wanted = and_(chain.c.snapshots_state.is_not(None), chain.c.place < MAX_CHAIN)
    chain = chain.union_all(
        select(chain.c.place + 1, chain.c.head_version, *SNAPSHOT_COLUMNS, *FRAME_COLUMNS)
        .select_from(chain.join(snapshots, snapshots.c.version == base_version))
        .where(of_run, wanted)
    )
    return select(*chain.c)
