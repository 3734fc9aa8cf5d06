"""The statements of the barrier and of the lists. Each is one statement."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, and_, case, false, or_, select

from statekeep_server.domain.model import Run, RunKey
from statekeep_server.service.ports import Probe, RunCursor, RunPage, SnapshotPage, Standing
from statekeep_server.storage.chains import Described, Statement, is_live
from statekeep_server.storage.dialect import Dialect
from statekeep_server.storage.loading import minute_of
from statekeep_server.storage.rows import (
    HEAD_COLUMNS,
    RESULT_COLUMNS,
    RESULT_DESCRIBED,
    read_head,
    read_result,
    read_snapshot,
    snapshot_columns,
)
from statekeep_server.storage.tables import audit_records, heads, request_results, snapshots

PROBE = ("tenant", "run_id", "request_id")


class Reading:
    """Makes the statements of one dialect and reads their answers."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._described = Described(dialect)
        self.barrier_statement = _barrier(dialect)

    def barrier(self, probes: Sequence[Probe]) -> Statement:
        """Ask for heads, earlier results and the clock, at one moment."""
        rows = [(probe.key.tenant, probe.key.run_id, probe.request_id) for probe in probes]
        return self.barrier_statement, self._dialect.asked_rows(PROBE, rows)

    def standings(self, probes: Sequence[Probe], rows: Sequence[RowMapping]) -> Sequence[Standing]:
        """Read the answer of `barrier`."""
        by_position = {self._dialect.position(row["position"]): row for row in rows}
        return [_standing(probe, by_position[i]) for i, probe in enumerate(probes)]

    def list_snapshots(self, key: RunKey, *, limit: int, before_version: int | None) -> Statement:
        """Ask for a page and one snapshot more."""
        statement = (
            select(*snapshot_columns(self._described.audit))
            .select_from(self._described.joined())
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
            # By the minute for its index; within it the database sorts the rest.
            .order_by(heads.c.active_minute.desc(), heads.c.persisted_at_us.desc(), heads.c.run_id)
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


def _after(cursor: RunCursor) -> ColumnElement[bool]:
    time_us = heads.c.persisted_at_us
    return and_(
        # The minute says nothing new, but finds its place in the index.
        heads.c.active_minute <= minute_of(cursor.persisted_at_us),
        or_(
            time_us < cursor.persisted_at_us,
            and_(time_us == cursor.persisted_at_us, heads.c.run_id > cursor.run_id),
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
        )
        .outerjoin(
            request_results,
            and_(*(request_results.c[name] == asked.c[name] for name in PROBE)),
        )
        .outerjoin(audit_records, RESULT_DESCRIBED)
    )
