"""The store in memory: what a `StateStore` has to do, said as plainly as possible.

It keeps nothing beyond the process. Tests use it, and the other stores are held to it by the
conformance suite. No method awaits anything, so each is a transaction.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from statekeep_server.domain.audit import AuditRecord
from statekeep_server.domain.errors import Failed, StateError
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    Head,
    LoadedState,
    Newest,
    Run,
    RunKey,
    SaveResult,
    Selector,
    Snapshot,
)
from statekeep_server.domain.policy import is_standing
from statekeep_server.domain.transition import RecordedResult, apply_delete
from statekeep_server.service.ports import (
    Append,
    Clock,
    Probe,
    RunCursor,
    RunPage,
    SnapshotPage,
    Standing,
    StoreStatistics,
)
from statekeep_server.storage.deciding import RequestKey, decide_all, request_key
from statekeep_server.storage.loading import minute_of, not_found, verified


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A head and what the list of runs shows beside it."""

    head: Head
    thread_id: str
    user_id: str
    deleted: bool = False


class MemoryStateStore:
    """Keeps states in dictionaries. Implements `service.ports.StateStore`."""

    def __init__(self, clock: Clock, new_id: Callable[[], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._rows: dict[RunKey, _Row] = {}
        self._snapshots: dict[tuple[RunKey, int], Snapshot] = {}
        self._results: dict[RequestKey, tuple[RecordedResult, int]] = {}
        self._rows_written = 0
        self.audit: dict[RunKey, list[AuditRecord]] = {}
        """The audit log, for those who verify it."""

    async def barrier(self, probes: Sequence[Probe]) -> Sequence[Standing]:
        """Look the heads and earlier results up."""
        return [self._standing(probe) for probe in probes]

    def _standing(self, probe: Probe) -> Standing:
        row = self._rows.get(probe.key)
        earlier, _ = self._results.get((probe.key, probe.request_id), (None, 0))
        now_us = self._clock.now_us()
        return Standing(head=row.head if row else None, earlier=earlier, now_us=now_us)

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        """Decide all saves, then write them."""
        now_us = self._clock.now_us()
        requests = {request_key(append) for append in appends}
        decided = decide_all(
            appends,
            heads={key: self._rows[key].head for key, _ in requests if key in self._rows},
            earlier={name: self._results[name][0] for name in requests if name in self._results},
            now_us=now_us,
            new_id=self._name,
            atomic=atomic,
        )
        for written in decided.written:
            snapshot = written.snapshot
            self._snapshots[snapshot.key, snapshot.version] = snapshot
            self.audit.setdefault(snapshot.key, []).append(written.audit)
        for key, moved in decided.heads.items():
            named = moved.newest or self._rows[key]
            self._rows[key] = _Row(
                head=moved.head, thread_id=named.thread_id, user_id=named.user_id
            )
        for name, recorded in decided.results.items():
            self._results[name] = recorded, now_us
        self._rows_written += decided.rows
        return decided.answers

    async def append_in_session(self, session: object, append: Append) -> SaveResult:
        """Refuse: there are no sessions here."""
        raise _no_session(session, append)

    async def load(self, key: RunKey, selector: Selector) -> LoadedState:
        """Return the newest live snapshot that is selected."""
        for snapshot in self._live(key):
            if _selects(selector, snapshot):
                head_version = self._rows[key].head.version
                return LoadedState(snapshot=verified(snapshot), head_version=head_version)
        raise not_found(key, selector)

    def _name(self, version: int) -> str:
        """Name a snapshot; its version is for stores that look for it by its id."""
        del version
        return self._new_id()

    async def load_newest(self, keys: Sequence[RunKey]) -> Sequence[LoadedState | StateError]:
        """Look newest snapshots up."""
        answers: list[LoadedState | StateError] = []
        for key in keys:
            try:
                answers.append(await self.load(key, Newest()))
            except StateError as error:
                answers.append(error)
        return answers

    async def load_in_session(
        self, session: object, key: RunKey, selector: Selector
    ) -> LoadedState:
        """Refuse: there are no sessions here."""
        raise _no_session(session, key, selector)

    def _live(self, key: RunKey) -> Iterable[Snapshot]:
        """Iterate over the snapshots of a run that have not expired, newest first."""
        now_us = self._clock.now_us()
        own = (s for s in self._snapshots.values() if s.key == key and not _expired(s, now_us))
        return sorted(own, key=lambda snapshot: -snapshot.version)

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        """Cut a page of the live snapshots."""
        older = [
            replace(snapshot, state=None)
            for snapshot in self._live(key)
            if before_version is None or snapshot.version < before_version
        ]
        page = tuple(older[:limit])
        return SnapshotPage(page, page[-1].version if len(older) > limit else None)

    async def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None = None,
        user_id: str | None = None,
        after: RunCursor | None = None,
    ) -> RunPage:
        """Cut a page of the runs of a tenant."""
        runs = sorted(
            (
                self._run(row)
                for row in self._rows.values()
                if row.head.key.tenant == tenant
                and not row.deleted
                and thread_id in {None, row.thread_id}
                and user_id in {None, row.user_id}
            ),
            key=_place,
        )
        if after is not None:
            place = (-after.persisted_at_us, after.run_id)
            runs = [run for run in runs if _place(run) > place]
        page = tuple(runs[:limit])
        more = len(runs) > limit
        return RunPage(
            page, RunCursor(page[-1].persisted_at_us, page[-1].key.run_id) if more else None
        )

    def _run(self, row: _Row) -> Run:
        head = row.head
        return Run(
            key=head.key,
            thread_id=row.thread_id,
            user_id=row.user_id,
            version=head.version,
            snapshot_id=head.snapshot_id if is_standing(head, self._clock.now_us()) else None,
            persisted_at_us=head.persisted_at_us,
        )

    async def delete_run(self, key: RunKey) -> int:
        """Leave a tombstone."""
        row = self._rows.get(key)
        if row is None or row.deleted:
            return 0
        tombstone, record = apply_delete(row.head, now_us=self._clock.now_us())
        self._rows[key] = replace(row, head=tombstone, deleted=True)
        self.audit[key].append(record)
        snapshots = [name for name in self._snapshots if name[0] == key]
        results = [name for name in self._results if name[0] == key]
        for name in snapshots:
            del self._snapshots[name]
        for request in results:
            del self._results[request]
        self._rows_written += len(snapshots) + len(results) + 2
        return len(snapshots)

    async def sweep(self, *, limit: int, request_results_before_us: int) -> int:
        """Delete what expired first, then what was recorded first."""
        now_us = self._clock.now_us()
        expired = [s for s in self._snapshots.values() if _expired(s, now_us)]
        expired = sorted(expired, key=lambda s: s.expires_at_us or 0)[:limit]
        for snapshot in expired:
            del self._snapshots[snapshot.key, snapshot.version]
            row = self._rows[snapshot.key]
            if row.head.snapshot_id == snapshot.snapshot_id:
                self._rows[snapshot.key] = replace(row, head=swept(row.head))
                self._rows_written += 1
        old = [
            (at_us, name)
            for name, (_, at_us) in self._results.items()
            if minute_of(at_us) < minute_of(request_results_before_us)
        ]
        old = sorted(old)[: limit - len(expired)]
        for _, name in old:
            del self._results[name]
        self._rows_written += len(expired) + len(old)
        return len(expired) + len(old)

    async def check(self) -> None:
        """Memory is always there."""

    def statistics(self) -> StoreStatistics:
        """Count the rows; there are no statements."""
        return StoreStatistics(rows_written=self._rows_written, statements=0, pool=None)


def swept(head: Head) -> Head:
    """Return a head after its snapshot went: nothing stands, nothing matches."""
    return replace(
        head, snapshot_id=None, comparison_hash=None, state_sha256=None, expires_at_us=None
    )


def _no_session(*_: object) -> Failed:
    return Failed("the store in memory has no sessions")


def _selects(selector: Selector, snapshot: Snapshot) -> bool:
    match selector:
        case ByVersion(version):
            return snapshot.version == version
        case ById(snapshot_id):
            return snapshot.snapshot_id == snapshot_id
        case Newest():
            return True


def _expired(snapshot: Snapshot, now_us: int) -> bool:
    return snapshot.expires_at_us is not None and snapshot.expires_at_us <= now_us


def _place(run: Run) -> tuple[int, str]:
    return (-run.persisted_at_us, run.key.run_id)
