"""Stores and caches that fail where a test says so."""

from collections.abc import Sequence

from statekeep_server.domain.errors import CommitUnknown, StateError
from statekeep_server.domain.model import LoadedState, RunKey, SaveResult, Selector
from statekeep_server.service.ports import (
    Append,
    CachedHead,
    CacheStatistics,
    HeadCache,
    Probe,
    RunCursor,
    RunPage,
    SnapshotPage,
    Standing,
    StateStore,
    StoreStatistics,
)


class FaultyStore:
    """A `StateStore` around another one that fails as told.

    `faults` maps a method to the errors of its next calls, `always` to the error of every call;
    the next `lose_commits` calls of `append_many` commit and then raise CommitUnknown.
    """

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.faults: dict[str, list[Exception]] = {}
        self.always: dict[str, Exception] = {}
        self.lose_commits = 0
        self.calls: list[str] = []

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if method in self.always:
            raise self.always[method]
        if self.faults.get(method):
            raise self.faults[method].pop(0)

    async def barrier(self, probes: Sequence[Probe]) -> Sequence[Standing]:
        self._called("barrier")
        return await self.store.barrier(probes)

    async def append_many(
        self, appends: Sequence[Append], *, atomic: bool = False
    ) -> Sequence[SaveResult | Exception]:
        self._called("append_many")
        results = await self.store.append_many(appends, atomic=atomic)
        if self.lose_commits:
            self.lose_commits -= 1
            raise CommitUnknown
        return results

    async def append_in_session(self, session: object, append: Append) -> SaveResult:
        self._called("append_in_session")
        return await self.store.append_in_session(session, append)

    async def load(self, key: RunKey, selector: Selector) -> LoadedState:
        self._called("load")
        return await self.store.load(key, selector)

    async def load_newest(self, keys: Sequence[RunKey]) -> Sequence[LoadedState | StateError]:
        self._called("load_newest")
        return await self.store.load_newest(keys)

    async def load_in_session(
        self, session: object, key: RunKey, selector: Selector
    ) -> LoadedState:
        self._called("load_in_session")
        return await self.store.load_in_session(session, key, selector)

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        self._called("list_snapshots")
        return await self.store.list_snapshots(key, limit=limit, before_version=before_version)

    async def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None = None,
        user_id: str | None = None,
        after: RunCursor | None = None,
    ) -> RunPage:
        self._called("list_runs")
        return await self.store.list_runs(
            tenant, limit=limit, thread_id=thread_id, user_id=user_id, after=after
        )

    async def delete_run(self, key: RunKey) -> int:
        self._called("delete_run")
        return await self.store.delete_run(key)

    async def sweep(self, *, limit: int, request_results_before_us: int) -> int:
        self._called("sweep")
        return await self.store.sweep(
            limit=limit, request_results_before_us=request_results_before_us
        )

    async def check(self) -> None:
        self._called("check")
        await self.store.check()

    def statistics(self) -> StoreStatistics:
        return self.store.statistics()


class FaultyCache:
    """A `HeadCache` around another one that fails as told, by the names of its methods."""

    def __init__(self, heads: HeadCache) -> None:
        self.heads = heads
        self.always: dict[str, Exception] = {}

    def _called(self, method: str) -> None:
        if method in self.always:
            raise self.always[method]

    async def get(self, key: RunKey) -> CachedHead | None:
        self._called("get")
        return await self.heads.get(key)

    async def put(self, key: RunKey, head: CachedHead) -> None:
        self._called("put")
        await self.heads.put(key, head)

    async def invalidate(self, key: RunKey) -> None:
        self._called("invalidate")
        await self.heads.invalidate(key)

    def statistics(self) -> CacheStatistics:
        return self.heads.statistics()
