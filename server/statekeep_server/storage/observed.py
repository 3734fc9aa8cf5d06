"""A store that is watched: how long what it does takes, and a span of it where a call is traced.

Around the store and not in it, so that a server that tells nothing pays nothing.
"""

from collections.abc import Sequence

from statekeep_server.domain.errors import StateError
from statekeep_server.domain.model import LoadedState, RunKey, SaveResult, Selector
from statekeep_server.service.ports import (
    Append,
    Probe,
    RunCursor,
    RunPage,
    SnapshotPage,
    Standing,
    StateStore,
    StoreStatistics,
)
from statekeep_server.telemetry.operations import Operations


class ObservedStore:
    """Passes everything on. Implements `service.ports.StateStore`."""

    def __init__(self, store: StateStore, operations: Operations) -> None:
        self._store = store
        self._operations = operations

    async def barrier(self, probes: Sequence[Probe]) -> Sequence[Standing]:
        """Read what stands."""
        with self._operations.begin("barrier", len(probes)):
            return await self._store.barrier(probes)

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        """Decide and write saves."""
        with self._operations.begin("append", len(appends)):
            return await self._store.append_many(appends, atomic=atomic)

    async def append_in_session(self, session: object, append: Append) -> SaveResult:
        """Stage a save."""
        with self._operations.begin("append_in_session"):
            return await self._store.append_in_session(session, append)

    async def load(self, key: RunKey, selector: Selector) -> LoadedState:
        """Read a snapshot."""
        with self._operations.begin("load"):
            return await self._store.load(key, selector)

    async def load_newest(self, keys: Sequence[RunKey]) -> Sequence[LoadedState | StateError]:
        """Read the newest snapshots of many runs."""
        with self._operations.begin("load_newest", len(keys)):
            return await self._store.load_newest(keys)

    async def load_in_session(
        self, session: object, key: RunKey, selector: Selector
    ) -> LoadedState:
        """Read on a caller's session."""
        with self._operations.begin("load_in_session"):
            return await self._store.load_in_session(session, key, selector)

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        """List snapshots."""
        with self._operations.begin("list_snapshots"):
            return await self._store.list_snapshots(key, limit=limit, before_version=before_version)

    async def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None = None,
        user_id: str | None = None,
        after: RunCursor | None = None,
    ) -> RunPage:
        """List runs."""
        with self._operations.begin("list_runs"):
            return await self._store.list_runs(
                tenant, limit=limit, thread_id=thread_id, user_id=user_id, after=after
            )

    async def delete_run(self, key: RunKey) -> int:
        """Delete the snapshots of a run."""
        with self._operations.begin("delete_run"):
            return await self._store.delete_run(key)

    async def sweep(self, *, limit: int, request_results_before_us: int) -> int:
        """Delete what is over."""
        with self._operations.begin("sweep"):
            return await self._store.sweep(
                limit=limit, request_results_before_us=request_results_before_us
            )

    async def check(self) -> None:
        """Ask the database."""
        with self._operations.begin("check"):
            await self._store.check()

    def statistics(self) -> StoreStatistics:
        """Count what the store did."""
        return self._store.statistics()
