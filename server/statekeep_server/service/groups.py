"""The groups of the optimized path: saves that share a transaction, reads that share a statement.

The standard path has none: each of its saves is a transaction of its own.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from statekeep_server.batching.group_commit import GroupCommit, GroupLimits
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import SaveResult
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.ports import Append, Probe, Standing, StateStore


@dataclass(frozen=True, slots=True)
class QueuedSave:
    """A save on its way to the next commit."""

    append: Append
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Groups:
    """One group of each kind, over one store."""

    saves: GroupCommit[QueuedSave, SaveResult]
    probes: GroupCommit[Probe, Standing]


def is_the_databases_fault(error: Exception) -> bool:
    """Whether every save of a batch would fail alike, so that trying each only takes longer."""
    return isinstance(error, StorageUnavailable) and error.cause != "OTHER"


@asynccontextmanager
async def open_groups(store: StateStore, limits: GroupLimits) -> AsyncIterator[Groups]:
    """Start the groups of a store; leaving commits what waits."""

    async def commit(batch: Sequence[QueuedSave]) -> Sequence[SaveResult | Exception]:
        return await store.append_many([queued.append for queued in batch])

    saves: GroupCommit[QueuedSave, SaveResult] = GroupCommit(
        commit,
        limits=limits,
        size_of=lambda queued: len(queued.append.save.command.state),
        check=lambda queued: queued.deadline.check(),
        may_be_one_items_fault=lambda error: not is_the_databases_fault(error),
    )
    # One statement at a time: what arrives meanwhile shares the next, which is sent after all of
    # it has arrived.
    probes: GroupCommit[Probe, Standing] = GroupCommit(store.barrier, limits=limits)
    async with probes, saves:
        yield Groups(saves, probes)
