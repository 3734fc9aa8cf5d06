"""The groups of the optimized path: saves that share a transaction, reads that share a statement.

The standard path has none: each of its saves is a transaction of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from statekeep_server.batching.group_commit import GroupCommit, GroupLimits
from statekeep_server.domain.errors import Refused, StorageUnavailable
from statekeep_server.domain.model import LoadedState, RunKey, SaveResult
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.ports import Append, Clock, Probe, Standing, StateStore

LOADS = 32
"""Loads that share a statement: each brings a state with it."""


@dataclass(frozen=True, slots=True)
class QueuedSave:
    """A save on its way to the next commit.

    Attributes:
        before: The save of the run that was queued before it, if that is not done yet.
    """

    append: Append
    deadline: Deadline
    before: "asyncio.Future[SaveResult] | None" = None

    def check(self) -> None:
        """Raise when the save shall not be sent any more.

        A save whose predecessor could not be written falls back with it, behind it: written or
        skipped without it, the run would end with the earlier of the two. One that was refused
        is no reason, for it was decided.
        """
        self.deadline.check()
        if self.before is not None and self.before.done() and not self.before.cancelled():
            error = self.before.exception()
            if error is not None and not isinstance(error, Refused):
                raise error


@dataclass(frozen=True, slots=True)
class Groups:
    """One group of each kind, over one store."""

    saves: GroupCommit[QueuedSave, SaveResult]
    probes: GroupCommit[Probe, Standing]
    loads: GroupCommit[RunKey, LoadedState]


def is_the_databases_fault(error: Exception) -> bool:
    """Whether every save of a batch would fail alike, so that trying each only takes longer."""
    return isinstance(error, StorageUnavailable) and error.cause != "OTHER"


@asynccontextmanager
async def open_groups(
    store: StateStore, limits: GroupLimits, clock: Clock | None = None
) -> AsyncIterator[Groups]:
    """Start the groups of a store; leaving commits what waits."""
    monotonic_s = clock.monotonic_s if clock else None

    async def commit(batch: Sequence[QueuedSave]) -> Sequence[SaveResult | Exception]:
        if len(batch) == 1:
            batch[0].check()  # after a batch failed its saves are tried one by one
        return await store.append_many([queued.append for queued in batch])

    saves: GroupCommit[QueuedSave, SaveResult] = GroupCommit(
        commit,
        limits=limits,
        size_of=lambda queued: len(queued.append.save.command.state),
        check=QueuedSave.check,
        monotonic_s=monotonic_s,
        may_be_one_items_fault=lambda error: not is_the_databases_fault(error),
    )
    # One statement at a time: what arrives meanwhile shares the next, which is sent after all of
    # it has arrived.
    probes: GroupCommit[Probe, Standing] = GroupCommit(
        store.barrier, limits=limits, monotonic_s=monotonic_s
    )
    loads: GroupCommit[RunKey, LoadedState] = GroupCommit(
        store.load_newest, limits=replace(limits, max_items=LOADS), monotonic_s=monotonic_s
    )
    async with probes, loads, saves:
        yield Groups(saves, probes, loads)
