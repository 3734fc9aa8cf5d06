"""Chains: a snapshot and the frames that it builds on, read in one statement."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    RowMapping,
    Select,
    and_,
    bindparam,
    literal_column,
    or_,
    select,
)

from statekeep_server.domain.errors import StateCorrupt
from statekeep_server.domain.model import ById, ByVersion, LoadedState, Newest, RunKey, Selector
from statekeep_server.domain.values import value_class
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.frames import CorruptFrame, StoredFrame, decode
from statekeep_server.storage.loading import not_found
from statekeep_server.storage.rows import (
    DESCRIBED,
    FRAME_COLUMNS,
    description_columns,
    frame_columns,
    read_frame,
    read_snapshot,
    snapshot_columns,
)
from statekeep_server.storage.snapshot_ids import is_snapshot_id, version_named
from statekeep_server.storage.tables import audit_records, heads, snapshots

MAX_CHAIN = 64
"""No chain is so long; one that seems to be is corrupt, and must not be read for ever."""

Statement = tuple[Select[Any], dict[str, object]]
"""A statement and its parameters."""

Rows = Sequence[RowMapping]
"""Rows that are read by name: SQLAlchemy's, or the driver's."""

OF_RUN: tuple[ColumnElement[str], ColumnElement[str]] = (bindparam("tenant"), bindparam("run_id"))


@value_class()
class FoundState:
    """A state as it was read, with the frames that it was read from."""

    loaded: LoadedState
    chain: Sequence[StoredFrame]


class Described:
    """The snapshots with their audit records, which describe them, in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.audit, on = dialect.looked_up(audit_records, DESCRIBED, "described")
        self._on = on

    def joined(self, to: FromClause = snapshots) -> FromClause:
        """Join the audit records to snapshots, or to a join of them."""
        return to.join(self.audit, self._on)


class Chains:
    """Makes the statements of single loads for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        live, described = is_live(dialect), Described(dialect)
        by_version = snapshots.c.version == bindparam("selected")
        by_id = described.audit.c.snapshot_id == bindparam("snapshot_id")
        selections = {
            "newest": live,
            "version": and_(live, by_version),
            "named": and_(live, by_version, by_id),
            "id": and_(live, by_id),
        }
        self._chains = {
            name: select_chain(described, *OF_RUN, selected)
            for name, selected in selections.items()
        }
        columns = snapshot_columns(described.audit)
        self._described = {
            name: _select_one(described, *OF_RUN, selected, columns)
            for name, selected in selections.items()
        }

    def load(self, key: RunKey, selector: Selector) -> Statement | None:
        """Ask for the newest live snapshot that is selected, the frames under it, and the head.

        None where nothing can be selected.
        """
        found = _select(selector)
        return found and (self._chains[found[0]], {**key._asdict(), **found[1]})

    def describe(self, key: RunKey, selector: Selector) -> Statement | None:
        """Ask for the same without any frame."""
        found = _select(selector)
        return found and (self._described[found[0]], {**key._asdict(), **found[1]})


def selected_version(selector: Selector) -> int | None:
    """The version that a selector names, as far as it can be told without asking."""
    match selector:
        case ByVersion(version):
            return version
        case ById(snapshot_id) if is_snapshot_id(snapshot_id):
            return version_named(snapshot_id)
        case _:
            return None


def _select(selector: Selector) -> tuple[str, dict[str, object]] | None:
    match selector:
        case Newest():
            return "newest", {}
        case ByVersion(version):
            return "version", {"selected": version}
        case ById(snapshot_id):
            if not is_snapshot_id(snapshot_id):
                return None
            named = version_named(snapshot_id)
            if named is None:
                return "id", {"snapshot_id": snapshot_id}
            return "named", {"snapshot_id": snapshot_id, "selected": named}


def read_described(key: RunKey, selector: Selector, rows: Rows) -> LoadedState:
    """Read the answer of `describe`: a snapshot without its state.

    Raises RunNotFound or SnapshotNotFound.
    """
    if not rows:
        raise not_found(key, selector)
    return LoadedState(snapshot=read_snapshot(key, rows[0]), head_version=rows[0]["head_version"])


def read_loaded(
    key: RunKey,
    selector: Selector,
    rows: Rows,
    known: Callable[[int], bytes | None] = lambda _version: None,
) -> FoundState:
    """Read the answer of `load`; `known` gives payloads by their version (see `decode`).

    Raises RunNotFound, SnapshotNotFound or StateCorrupt.
    """
    rows = _in_order(rows)
    described = read_described(key, selector, rows)
    snapshot = described.snapshot
    chain = [read_frame(row) for row in rows]
    try:
        state = decode(chain, snapshot.state_sha256, known)
    except CorruptFrame as error:
        raise StateCorrupt(key.run_id, snapshot.snapshot_id) from error
    return FoundState(replace(described, snapshot=replace(snapshot, state=state)), chain)


def chained(rows: Rows) -> list[StoredFrame]:
    """Make the frames of `select_chain`, each before the one that it builds on."""
    return [read_frame(row) for row in _in_order(rows)]


def _in_order(rows: Rows) -> Rows:
    # They come so, unless a database changes its mind.
    return sorted(rows, key=itemgetter("place"))


def is_live(dialect: Dialect) -> ColumnElement[bool]:
    """Whether a snapshot has not expired."""
    expires = snapshots.c.expires_at_us
    return or_(expires.is_(None), expires > dialect.now_us)


def select_chain(
    described: Described,
    tenant: ColumnElement[Any],
    run_id: ColumnElement[Any],
    selected: ColumnElement[bool],
    *,
    state: ColumnElement[Any] = snapshots.c.state,
    max_state_bytes: int | None = None,
) -> Select[Any]:
    """Select the newest snapshot of a run that is `selected`, and then the bases of its frame.

    From the first base to the last, whatever their expiry: what builds on them may be live.

    Args:
        described: The snapshots.
        tenant: Of the run.
        run_id: Of the run.
        selected: Which snapshot, of the columns of `snapshots` and `described.audit`.
        state: What to select as its frame; where that is NULL its bases are left out.
        max_state_bytes: Of its payload; a larger one is not selected at all.
    """
    frame = [
        state.label(column.name) if column.name == "snapshots_state" else column
        for column in FRAME_COLUMNS
    ]
    columns = (*frame, *description_columns(described.audit))
    newest = _select_one(described, tenant, run_id, selected, columns).cte("newest")
    names = [column.name for column in FRAME_COLUMNS]
    top = select(literal_column("0", Integer).label("place"), *(newest.c[name] for name in names))
    if max_state_bytes is not None:
        top = top.where(newest.c.snapshots_state_bytes <= max_state_bytes)
    chain = top.cte("chain", recursive=True)
    below, on = described.dialect.looked_up(
        snapshots,
        and_(
            snapshots.c.tenant == tenant,
            snapshots.c.run_id == run_id,
            snapshots.c.version == chain.c.snapshots_base_version,
        ),
        "below",
    )
    chain = chain.union_all(
        select(chain.c.place + 1, *frame_columns(below))
        .select_from(chain.join(below, on))
        .where(chain.c.snapshots_state.is_not(None), chain.c.place < MAX_CHAIN)
    )
    # Only the first row is described. They are ordered by those who read them: a database would
    # sort the payloads with the rows.
    rest = [column for column in newest.c if column.name not in names]
    return select(*chain.c, *rest).select_from(
        chain.outerjoin(newest, chain.c.place == literal_column("0", Integer))
    )


def _select_one(
    described: Described,
    tenant: ColumnElement[Any],
    run_id: ColumnElement[Any],
    selected: ColumnElement[bool],
    columns: Sequence[ColumnElement[Any]],
) -> Select[Any]:
    same_run = and_(heads.c.tenant == snapshots.c.tenant, heads.c.run_id == snapshots.c.run_id)
    return (
        select(heads.c.version.label("head_version"), *columns)
        .select_from(described.joined(heads.join(snapshots, same_run)))
        .where(snapshots.c.tenant == tenant, snapshots.c.run_id == run_id, selected)
        .order_by(snapshots.c.version.desc())
        .limit(1)
    )
