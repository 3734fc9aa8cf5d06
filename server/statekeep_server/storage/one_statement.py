"""Saves in one statement: decided by what is known of the heads, written where that holds.

PostgreSQL only. Runs whose head is known (`known_heads`) are decided before anything is sent.
One statement then locks those heads that are still as expected (version, audit hash, standing
snapshot, writer sequence), moves them, and inserts what belongs to them; it is its own
transaction, so that a batch costs one round trip. A run that does not match, or that somebody else
holds, is left alone by all parts of the statement, and takes the locked save (`appending`).

Only first attempts that are to be persisted come here. Everything that is answered from what is
stored (a skip, a conflict, an earlier result) is answered under the lock. A request id that was
used before violates the key of the results and fails the whole statement, which changes nothing;
its saves then go under the lock too. Rows of heads are locked in the order of their keys, like
everywhere, so that two statements cannot wait for each other in a circle.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from sqlalchemy import Table

from statekeep_server.domain.errors import CommitUnknown
from statekeep_server.domain.model import Head, Outcome, RunKey, SaveResult
from statekeep_server.domain.values import value_class
from statekeep_server.service.ports import Append
from statekeep_server.storage.appending import snapshot_rows
from statekeep_server.storage.deciding import Decided, decide_all
from statekeep_server.storage.known_heads import DatabaseClock, Known, KnownHeads
from statekeep_server.storage.lane import RAW_ERRORS, Lane, Wire
from statekeep_server.storage.payloads import Framed, Payloads
from statekeep_server.storage.rows import (
    KEY,
    Row,
    audit_row,
    head_row,
    new_head_row,
    result_row,
)
from statekeep_server.storage.tables import audit_records, heads, request_results, snapshots
from statekeep_server.storage.translate import diagnose, unavailable, with_cause

UNIQUE_VIOLATION = "23505"

EXPECTED = ("version", "audit_hash", "snapshot_id", "expires_at_us", "writer_sequence")
"""What must stand in a head for the statement to move it."""

TABLES = (heads, snapshots, audit_records, request_results)

_COLUMNS = """
SELECT attribute.attrelid::regclass::text AS name, attribute.attname AS column_name
FROM pg_attribute AS attribute
WHERE attribute.attrelid = ANY ($1::regclass[]) AND attribute.attnum > 0
  AND NOT attribute.attisdropped
ORDER BY attribute.attnum
"""


Makers = Mapping[str, Callable[[Row], tuple[object, ...]]]
"""By the name of a table: make a value of its type, which is a row of it."""


async def read_makers(lane: Lane) -> Makers:
    """Ask for the order of the columns: a database that was migrated may have its own.

    Raises StorageUnavailable.
    """
    columns: dict[str, list[str]] = {table.name: [] for table in TABLES}
    for row in await lane.read(_COLUMNS, list(columns)):
        columns[row["name"]].append(row["column_name"])
    return {name: itemgetter(*names) for name, names in columns.items()}


@value_class()
class _Plan:
    """The saves of one run, decided.

    Attributes:
        indexes: Their positions in the call.
        known: What was known of the head before them; None for a run that was never written.
    """

    indexes: tuple[int, ...]
    known: Head | None
    decided: Decided


class OneStatement:
    """Writes batches of saves in one statement each."""

    def __init__(
        self,
        wire: Lane | Wire,
        makers: Makers,
        known: KnownHeads,
        clock: DatabaseClock,
        payloads: Payloads | None,
        new_id: Callable[[int], str],
    ) -> None:
        self._wire = wire
        self._makers = makers
        self._known = known
        self._clock = clock
        self._payloads = payloads
        self._new_id = new_id
        self.rows_written = 0

    async def append(self, appends: Sequence[Append]) -> list[SaveResult | None]:
        """Save what can be saved so; None for a save that must go under the lock.

        All saves of a run are done, or none of them. Raises StorageUnavailable, or CommitUnknown
        when the statement got no answer.
        """
        answers: list[SaveResult | None] = [None] * len(appends)
        plans = self._plan(appends)
        if not plans:
            return answers
        framed = await self._frame(plans)
        done = await self._execute(plans, framed)
        for key, plan in plans.items():
            if key not in done:
                self._known.forget(key)
                continue
            self._known.wrote(key, plan.decided.heads[key].head)
            if self._payloads is not None and key in framed:
                self._payloads.committed(framed[key])
            self.rows_written += plan.decided.rows
            for index, answer in zip(plan.indexes, plan.decided.answers, strict=True):
                answers[index] = answer if isinstance(answer, SaveResult) else None
        return answers

    def _plan(self, appends: Sequence[Append]) -> dict[RunKey, _Plan]:
        now_us = self._clock.now_us()
        if now_us is None:
            return {}
        by_run: dict[RunKey, list[int]] = {}
        for index, append in enumerate(appends):
            by_run.setdefault(append.save.command.key, []).append(index)
        plans = {}
        for key, indexes in by_run.items():
            known = self._known.get(key)
            if known is not None:
                plan = self._plan_run(key, known, [appends[i] for i in indexes], indexes, now_us)
                if plan is not None:
                    plans[key] = plan
        return plans

    def _plan_run(
        self,
        key: RunKey,
        known: Known,
        appends: Sequence[Append],
        indexes: Sequence[int],
        now_us: int,
    ) -> _Plan | None:
        if any(append.save.command.attempt > 1 for append in appends):
            return None
        head = known if isinstance(known, Head) else None
        decided = decide_all(
            appends,
            heads={} if head is None else {key: head},
            earlier={},
            now_us=now_us,
            new_id=self._new_id,
            atomic=False,
        )
        for answer in decided.answers:
            if not isinstance(answer, SaveResult) or answer.outcome is not Outcome.PERSISTED:
                return None
        if len(decided.written) != len(appends):
            return None  # a request id twice in one batch: its second save is a replay
        return _Plan(tuple(indexes), head, decided)

    async def _frame(self, plans: dict[RunKey, _Plan]) -> dict[RunKey, Framed]:
        """Frame the payloads, all in one turn."""
        if self._payloads is None:
            return {}
        written = [one for plan in plans.values() for one in plan.decided.written]
        before = {key: plan.known for key, plan in plans.items()}
        all_framed = await self._payloads.frame(written, before)
        frames = iter(all_framed.frames)
        return {
            key: Framed([next(frames) for _ in plan.decided.written], {key: all_framed.newest[key]})
            for key, plan in plans.items()
        }

    async def _execute(
        self, plans: dict[RunKey, _Plan], framed: dict[RunKey, Framed]
    ) -> set[RunKey]:
        """Send the statement; return the runs whose heads it moved."""
        arguments = _arguments(plans, framed, self._makers)
        try:
            rows = await self._wire.fetch(STATEMENT, *arguments)
        except RAW_ERRORS as error:
            diagnosis = diagnose(error)
            if diagnosis.transient or diagnosis.code == UNIQUE_VIOLATION:
                return set()
            answered = diagnosis.answered
            failure = unavailable(error) if answered else with_cause(CommitUnknown(), error)
        else:
            if rows:
                self._clock.told(rows[0]["now_us"])
            return {RunKey(row["tenant"], row["run_id"]) for row in rows}
        raise failure


def _arguments(
    plans: dict[RunKey, _Plan], framed: dict[RunKey, Framed], makers: Makers
) -> list[list[tuple[object, ...]]]:
    """Make the arrays of rows that the statement takes."""
    moved_heads, expected_heads = [], []
    new_snapshots: list[tuple[object, ...]] = []
    new_audits: list[tuple[object, ...]] = []
    new_results: list[tuple[object, ...]] = []
    make_head, make_snapshot, make_audit, make_result = (makers[table.name] for table in TABLES)
    for key, plan in plans.items():
        moved = plan.decided.heads[key]
        newest = moved.newest
        listed = {
            "thread_id": newest.thread_id if newest else "",
            "user_id": newest.user_id if newest else "",
            "deleted": False,
        }
        expected = new_head_row(key) if plan.known is None else listed | head_row(plan.known)
        moved_heads.append(make_head(listed | head_row(moved.head)))
        expected_heads.append(make_head(expected))
        new_snapshots += map(make_snapshot, snapshot_rows(plan.decided, framed.get(key)))
        new_audits += [make_audit(audit_row(written.audit)) for written in plan.decided.written]
        new_results += [
            make_result(result_row(run, recorded, moved.head.persisted_at_us))
            for (run, _), recorded in plan.decided.results.items()
        ]
    return [moved_heads, expected_heads, new_snapshots, new_audits, new_results]


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _statement() -> str:
    """Write the statement from the tables, so that a new column is in it by itself.

    Rows come as arrays of the tables' own types: an array for each column would cost the driver a
    look at each of its values.
    """

    def insertion(table: Table, place: int) -> str:
        names = _names(table)
        given = ", ".join(f"given.{name}" for name in names)
        rows = f"unnest(${place}::{table.name}[]) AS given"
        into = f"{table.name} ({', '.join(names)})"
        return f"INSERT INTO {into} SELECT {given} FROM {rows} JOIN done USING (tenant, run_id)"  # noqa: S608  # our own names

    columns = _names(heads)
    changes = ", ".join(f"{name} = given.{name}" for name in columns if name not in KEY)
    same = " AND ".join(f"heads.{name} IS NOT DISTINCT FROM expected.{name}" for name in EXPECTED)
    return f"""
WITH given AS MATERIALIZED (SELECT * FROM unnest($1::heads[])),
expected AS MATERIALIZED (SELECT * FROM unnest($2::heads[])),
locked AS MATERIALIZED (
  SELECT heads.tenant, heads.run_id FROM expected JOIN heads USING (tenant, run_id)
  WHERE {same}
  ORDER BY heads.tenant, heads.run_id
  FOR UPDATE OF heads SKIP LOCKED
),
moved AS (
  UPDATE heads SET {changes}
  FROM given JOIN locked USING (tenant, run_id)
  WHERE heads.tenant = given.tenant AND heads.run_id = given.run_id
  RETURNING heads.tenant, heads.run_id
),
created AS (
  INSERT INTO heads ({", ".join(columns)})
  SELECT {", ".join(f"given.{name}" for name in columns)}
  FROM given JOIN expected USING (tenant, run_id) WHERE expected.version = 0
  ORDER BY given.tenant, given.run_id
  ON CONFLICT DO NOTHING
  RETURNING tenant, run_id
),
done AS MATERIALIZED (SELECT * FROM moved UNION ALL SELECT * FROM created),
new_snapshots AS ({insertion(snapshots, 3)}),
new_audit_records AS ({insertion(audit_records, 4)}),
new_request_results AS ({insertion(request_results, 5)})
SELECT tenant, run_id,
  (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS now_us
FROM done
"""  # noqa: S608  # the names are those of our own tables


STATEMENT = _statement()
