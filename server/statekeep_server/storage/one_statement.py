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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg
from sqlalchemy import BigInteger, Boolean, LargeBinary, Table, Text

from statekeep_server.domain.errors import CommitUnknown
from statekeep_server.domain.model import Head, Outcome, RunKey, SaveResult
from statekeep_server.service.ports import Append
from statekeep_server.storage.appending import snapshot_rows
from statekeep_server.storage.deciding import Decided, decide_all
from statekeep_server.storage.engine import Engines
from statekeep_server.storage.known_heads import DatabaseClock, Known, KnownHeads
from statekeep_server.storage.payloads import Framed, Payloads
from statekeep_server.storage.rows import (
    Row,
    audit_row,
    head_row,
    result_row,
)
from statekeep_server.storage.tables import audit_records, heads, request_results, snapshots
from statekeep_server.storage.translate import diagnose, unavailable, with_cause

UNIQUE_VIOLATION = "23505"

EXPECTED = {
    "expected_version": "bigint",
    "expected_audit_hash": "bytea",
    "expected_snapshot_id": "text",
    "expected_expires_at_us": "bigint",
    "expected_writer_sequence": "bigint",
}

_ARRAYS: dict[type, str] = {
    Text: "text",
    BigInteger: "bigint",
    LargeBinary: "bytea",
    Boolean: "boolean",
}

_RAW_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@dataclass(frozen=True, slots=True)
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
        engines: Engines,
        known: KnownHeads,
        clock: DatabaseClock,
        payloads: Payloads | None,
        new_id: Callable[[], str],
    ) -> None:
        self._engines = engines
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
            self._known.saw(key, plan.decided.heads[key].head)
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
        arguments = _arguments(plans, framed)
        async with self._engines.reader.connect() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            if driver is None:
                return set()
            try:
                self._engines.statements.sent += 1
                rows = await driver.fetch(STATEMENT, *arguments)
            except _RAW_ERRORS as error:
                diagnosis = diagnose(error)
                if diagnosis.transient or diagnosis.code == UNIQUE_VIOLATION:
                    return set()
                if diagnosis.answered:
                    failure: Exception = unavailable(error)
                else:
                    failure = with_cause(CommitUnknown(), error)
                    driver.terminate()
                    await connection.invalidate()
            else:
                if rows:
                    self._clock.told(rows[0]["now_us"])
                return {RunKey(row["tenant"], row["run_id"]) for row in rows}
        raise failure


def _arguments(plans: dict[RunKey, _Plan], framed: dict[RunKey, Framed]) -> list[list[object]]:
    """Make one array per column of the statement's inputs."""
    head_rows: list[Row] = []
    new_snapshots: list[Row] = []
    audit_rows: list[Row] = []
    result_rows: list[Row] = []
    for key, plan in plans.items():
        moved = plan.decided.heads[key]
        newest = moved.newest
        known = plan.known
        head_rows.append(
            {
                **head_row(moved.head),
                "thread_id": newest.thread_id if newest else "",
                "user_id": newest.user_id if newest else "",
                "deleted": False,
                "expected_version": known.version if known else 0,
                "expected_audit_hash": known.audit_hash if known else b"",
                "expected_snapshot_id": known.snapshot_id if known else None,
                "expected_expires_at_us": known.expires_at_us if known else None,
                "expected_writer_sequence": known.writer_sequence if known else None,
            }
        )
        new_snapshots += snapshot_rows(plan.decided, framed.get(key))
        audit_rows += [audit_row(written.audit) for written in plan.decided.written]
        for (run, _), recorded in plan.decided.results.items():
            result_rows.append(result_row(run, recorded, moved.head.persisted_at_us))
    arguments: list[list[object]] = []
    for names, rows in (
        (_HEAD_INPUTS, head_rows),
        (_names(snapshots), new_snapshots),
        (_names(audit_records), audit_rows),
        (_names(request_results), result_rows),
    ):
        arguments += [[row[name] for row in rows] for name in names]
    return arguments


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _types(table: Table) -> list[str]:
    return [_ARRAYS[type(column.type)] for column in table.columns]


_HEAD_INPUTS = [*_names(heads), *EXPECTED]


def _statement() -> str:
    """Write the statement from the tables, so that a new column is in it by itself."""
    position = 0

    def inputs(names: Sequence[str], types: Sequence[str]) -> str:
        nonlocal position
        arrays = []
        for kind in types:
            position += 1
            arrays.append(f"${position}::{kind}[]")
        return f"unnest({', '.join(arrays)}) AS given({', '.join(names)})"

    def insertion(table: Table) -> str:
        names = _names(table)
        given = ", ".join(f"given.{name}" for name in names)
        rows = inputs(names, _types(table))
        into = f"{table.name} ({', '.join(names)})"
        return f"INSERT INTO {into} SELECT {given} FROM {rows} JOIN done USING (tenant, run_id)"  # noqa: S608  # our own names

    columns = _names(heads)
    key = ("tenant", "run_id")
    changes = ", ".join(f"{name} = given.{name}" for name in columns if name not in key)
    given = inputs(_HEAD_INPUTS, [*_types(heads), *EXPECTED.values()])
    return f"""
WITH given AS MATERIALIZED (SELECT * FROM {given}),
locked AS MATERIALIZED (
  SELECT heads.tenant, heads.run_id FROM given JOIN heads USING (tenant, run_id)
  WHERE heads.version = given.expected_version
    AND heads.audit_hash = given.expected_audit_hash
    AND heads.snapshot_id IS NOT DISTINCT FROM given.expected_snapshot_id
    AND heads.expires_at_us IS NOT DISTINCT FROM given.expected_expires_at_us
    AND heads.writer_sequence IS NOT DISTINCT FROM given.expected_writer_sequence
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
  SELECT {", ".join(columns)} FROM given WHERE expected_version = 0
  ORDER BY tenant, run_id
  ON CONFLICT DO NOTHING
  RETURNING tenant, run_id
),
done AS MATERIALIZED (SELECT * FROM moved UNION ALL SELECT * FROM created),
new_snapshots AS ({insertion(snapshots)}),
new_audit_records AS ({insertion(audit_records)}),
new_request_results AS ({insertion(request_results)})
SELECT tenant, run_id,
  (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS now_us
FROM done
"""  # noqa: S608  # the names are those of our own tables


STATEMENT = _statement()
