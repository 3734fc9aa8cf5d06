"""A store under test, and hands on what lies below it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from statekeep_server.domain.audit import AuditRecord
from statekeep_server.domain.model import (
    RunKey,
    SaveResult,
)
from statekeep_server.service.ports import Append, Probe, StateStore
from tests.support.stores import an_append, new_key

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
A = b'{"step": "a"}'
B = b'{"step": "b"}'


@dataclass(frozen=True)
class Subject:
    """A store under test, and hands on what lies below it.

    Attributes:
        store: The store, on data of its own.
        another: Opens a second store on the same data, as another server would.
        pass_time: Lets so many microseconds pass for the data.
        audit: Reads the audit records of a run.
        tamper: Changes the stored bytes of a run's snapshots.
    """

    store: StateStore
    another: Callable[[], Awaitable[StateStore]]
    pass_time: Callable[[int], Awaitable[None]]
    audit: Callable[[RunKey], Awaitable[Sequence[AuditRecord]]]
    tamper: Callable[[RunKey], Awaitable[None]]

    async def now_us(self) -> int:
        """The time by the store's clock."""
        return (await self.store.barrier([Probe(new_key(), "")]))[0].now_us

    async def save(self, key: RunKey, state: bytes = A, **options: Any) -> SaveResult:
        """Save one state and expect it to be accepted."""
        return await self.append(an_append(key, state, **options))

    async def append(self, append: Append) -> SaveResult:
        """Append one save and expect it to be accepted."""
        answer = (await self.store.append_many([append]))[0]
        assert isinstance(answer, SaveResult), answer
        return answer

    async def refused(self, key: RunKey, state: bytes = A, **options: Any) -> Exception:
        """Save one state and expect it to be refused."""
        answer = (await self.store.append_many([an_append(key, state, **options)]))[0]
        assert isinstance(answer, Exception), answer
        return answer

    async def versions(self, key: RunKey) -> list[int]:
        """The versions of the live snapshots of a run, newest first."""
        page = await self.store.list_snapshots(key, limit=1_000)
        return [snapshot.version for snapshot in page.snapshots]

    async def runs(self, tenant: str, **filters: Any) -> list[str]:
        """The runs of a tenant, newest first."""
        page = await self.store.list_runs(tenant, limit=1_000, **filters)
        return [run.key.run_id for run in page.runs]

    async def rows_written(self, work: Awaitable[object]) -> int:
        """How many rows some work writes."""
        before = self.store.statistics().rows_written
        await work
        return self.store.statistics().rows_written - before
