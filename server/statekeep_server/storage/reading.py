"""The statements that only read: the barrier, loads and lists. Each is one statement."""

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    false,
    literal_column,
    or_,
    select,
)

from statekeep_server.domain.errors import StateCorrupt
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    LoadedState,
    Newest,
    Run,
    RunKey,
    Selector,
)
from statekeep_server.service.ports import Probe, RunCursor, RunPage, SnapshotPage, Standing
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.frames import CorruptFrame, StoredFrame, decode
from statekeep_server.storage.loading import not_found
from statekeep_server.storage.rows import (
    FRAME_COLUMNS,
    HEAD_COLUMNS,
    RESULT_COLUMNS,
    SNAPSHOT_COLUMNS,
    read_frame,
    read_head,
    read_result,
    read_snapshot,
)
from statekeep_server.storage.tables import heads, request_results, snapshots

PROBE = ("tenant", "run_id", "request_id")

MAX_CHAIN = 64
"""No chain is so long; one that seems to be is corrupt, and must not be read for ever."""

Statement = tuple[Select[Any], dict[str, object]]
"""A statement and its parameters."""


class Reading:
    """Makes the statements of one dialect and reads their answers."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.barrier_statement = _barrier(dialect)
        self._load = select_chain(is_live(dialect))

    def barrier(self, probes: Sequence[Probe]) -> Statement:
        """Ask for heads, earlier results and the clock, at one moment."""
        rows = [(probe.key.tenant, probe.key.run_id, probe.request_id) for probe in probes]
        return self.barrier_statement, self._dialect.asked_rows(PROBE, rows)

    def standings(self, probes: Sequence[Probe], rows: Sequence[RowMapping]) -> Sequence[Standing]:
        """Read the answer of `barrier`."""
        by_position = {self._dialect.position(row["position"]): row for row in rows}
        return [_standing(probe, by_position[i]) for i, probe in enumerate(probes)]

    def load(self, key: RunKey, selector: Selector) -> Statement:
        """Ask for the newest live snapshot that is selected, and the head's version."""
        parameters: dict[str, object] = {"tenant": key.tenant, "run_id": key.run_id}
        match selector:
            case ByVersion(version):
                selected = snapshots.c.version == bindparam("selected")
                parameters["selected"] = version
            case ById(snapshot_id):
                selected = snapshots.c.snapshot_id == bindparam("selected")
                parameters["selected"] = snapshot_id
            case Newest():
                return self._load, parameters
        return select_chain(and_(is_live(self._dialect), selected)), parameters

    def list_snapshots(self, key: RunKey, *, limit: int, before_version: int | None) -> Statement:
        """Ask for a page and one snapshot more."""
        statement = (
            select(*SNAPSHOT_COLUMNS)
            .where(
                snapshots.c.tenant == key.tenant,
                snapshots.c.run_id == key.run_id,
                is_live(self._dialect),
            )
            .order_by(snapshots.c.version.desc())
            .limit(limit + 1)
        )
        if before_version is not None:
            statement = statement.where(snapshots.c.version < before_version)
        return statement, {}

    def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None,
        user_id: str | None,
        after: RunCursor | None,
    ) -> Statement:
        """Ask for a page and one run more."""
        gone = heads.c.expires_at_us <= self._dialect.now_us
        statement = (
            select(
                heads.c.run_id,
                heads.c.thread_id,
                heads.c.user_id,
                heads.c.version,
                case((gone, None), else_=heads.c.snapshot_id).label("snapshot_id"),
                heads.c.persisted_at_us,
            )
            .where(heads.c.tenant == tenant, heads.c.deleted == false())
            .order_by(heads.c.persisted_at_us.desc(), heads.c.run_id)
            .limit(limit + 1)
        )
        for column, value in ((heads.c.thread_id, thread_id), (heads.c.user_id, user_id)):
            if value is not None:
                statement = statement.where(column == value)
            if value:
                # Said outright, for the partial index to be found.
                statement = statement.where(column != "")
        if after is not None:
            statement = statement.where(_after(after))
        return statement, {}


def read_loaded(key: RunKey, selector: Selector, rows: Sequence[RowMapping]) -> LoadedState:
    """Read the answer of `load`.

    Raises RunNotFound, SnapshotNotFound or StateCorrupt.
    """
    if not rows:
        raise not_found(key, selector)
    row = min(rows, key=itemgetter("place"))
    snapshot = read_snapshot(key, row)
    try:
        state = decode(chained(rows))
    except CorruptFrame as error:
        raise StateCorrupt(key.run_id, snapshot.snapshot_id) from error
    return LoadedState(snapshot=replace(snapshot, state=state), head_version=row["head_version"])


def frame_depth(rows: Sequence[RowMapping]) -> int:
    """The depth of the frame that `read_loaded` read."""
    depth: int = min(rows, key=itemgetter("place"))["snapshots_depth"]
    return depth


def chained(rows: Sequence[RowMapping]) -> list[StoredFrame]:
    """Make the frames of `select_chain`, each before the one that it builds on."""
    return [read_frame(row) for row in sorted(rows, key=itemgetter("place"))]


def read_snapshots(key: RunKey, limit: int, rows: Sequence[RowMapping]) -> SnapshotPage:
    """Read the answer of `list_snapshots`."""
    page = tuple(read_snapshot(key, row) for row in rows[:limit])
    return SnapshotPage(page, page[-1].version if len(rows) > limit else None)


def read_runs(tenant: str, limit: int, rows: Sequence[RowMapping]) -> RunPage:
    """Read the answer of `list_runs`."""
    page = tuple(
        Run(
            key=RunKey(tenant, row["run_id"]),
            thread_id=row["thread_id"],
            user_id=row["user_id"],
            version=row["version"],
            snapshot_id=row["snapshot_id"],
            persisted_at_us=row["persisted_at_us"],
        )
        for row in rows[:limit]
    )
    more = len(rows) > limit
    return RunPage(page, RunCursor(page[-1].persisted_at_us, page[-1].key.run_id) if more else None)


def is_live(dialect: Dialect) -> ColumnElement[bool]:
    """Whether a snapshot has not expired."""
    expires = snapshots.c.expires_at_us
    return or_(expires.is_(None), expires > dialect.now_us)


def _after(cursor: RunCursor) -> ColumnElement[bool]:
    return and_(
        # Said twice: the first part alone finds its place in the index.
        heads.c.persisted_at_us <= cursor.persisted_at_us,
        or_(
            heads.c.persisted_at_us < cursor.persisted_at_us,
            heads.c.run_id > cursor.run_id,
        ),
    )


def _standing(probe: Probe, row: RowMapping) -> Standing:
    return Standing(head=read_head(probe.key, row), earlier=read_result(row), now_us=row["now_us"])


def _barrier(dialect: Dialect) -> Select[Any]:
    asked = dialect.asked(*PROBE)
    return select(
        asked.c.position, dialect.now_us.label("now_us"), *HEAD_COLUMNS, *RESULT_COLUMNS
    ).select_from(
        asked.outerjoin(
            heads, and_(heads.c.tenant == asked.c.tenant, heads.c.run_id == asked.c.run_id)
        ).outerjoin(
            request_results,
            and_(*(request_results.c[name] == asked.c[name] for name in PROBE)),
        )
    )


def select_chain(selected: ColumnElement[bool]) -> Select[Any]:
    """Select the newest snapshot of a run that is `selected`, and then the bases of its frame.

    From the first base to the last, whatever their expiry: what builds on them may be live.
    """
    same_run = and_(heads.c.tenant == snapshots.c.tenant, heads.c.run_id == snapshots.c.run_id)
    of_run = and_(
        snapshots.c.tenant == bindparam("tenant"), snapshots.c.run_id == bindparam("run_id")
    )
    columns = (*SNAPSHOT_COLUMNS, *FRAME_COLUMNS)
    newest = (
        select(heads.c.version.label("head_version"), *columns)
        .select_from(heads.join(snapshots, same_run))
        .where(of_run, selected)
        .order_by(snapshots.c.version.desc())
        .limit(1)
        .subquery("newest")
    )
    chain = select(literal_column("0", Integer).label("place"), *newest.c).cte(
        "chain", recursive=True
    )
    chain = chain.union_all(
        select(chain.c.place + 1, chain.c.head_version, *columns)
        .select_from(chain.join(snapshots, snapshots.c.version == chain.c.snapshots_base_version))
        .where(of_run, chain.c.place < MAX_CHAIN)
    )
    # Ordered by `chained`: a database would sort the payloads with the rows.
    return select(*chain.c)
