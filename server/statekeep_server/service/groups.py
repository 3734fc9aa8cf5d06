"""The groups of the optimized path: saves that share a transaction, reads that share a statement.

The standard path has none: each of its saves is a transaction of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from statekeep_server.batching.group_commit import GroupCommit, GroupLimits
from statekeep_server.domain.errors import Refused, StateError, StorageUnavailable
from statekeep_server.domain.model import LoadedState, RunKey, SaveResult
from statekeep_server.domain.values import value_class
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.ports import Append, Clock, Probe, Standing, StateStore
from statekeep_server.telemetry import names
from statekeep_server.telemetry.operations import error_type_of
from statekeep_server.telemetry.spans import Span, shared, waiting

T = TypeVar("T")
R = TypeVar("R")

LOADS = 32
"""Loads that share a statement: each brings a state with it."""


@value_class()
class QueuedSave:
    """A save on its way to the next commit.

    Attributes:
        before: The save of the run that was queued before it, if that is not done yet.
        span: Of its wait; None where it is not traced.
    """

    append: Append
    deadline: Deadline
    before: "asyncio.Future[SaveResult] | None" = None
    span: Span | None = None

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


@value_class()
class Asked(Generic[T]):
    """What is asked of the store, together with others; `span` is that of the wait, if traced."""

    item: T
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """One group of each kind, over one store."""

    saves: GroupCommit[QueuedSave, SaveResult]
    probes: GroupCommit[Asked[Probe], Standing]
    loads: GroupCommit[Asked[RunKey], LoadedState]

    def save(
        self,
        append: Append,
        deadline: Deadline,
        before: "asyncio.Future[SaveResult] | None" = None,
    ) -> "asyncio.Future[SaveResult]":
        """Queue a save. Raises what `GroupCommit.submit` does, as the next two do."""
        span = _wait("append")
        return _ending(span, self.saves.submit(QueuedSave(append, deadline, before, span)))

    def probe(self, probe: Probe) -> "asyncio.Future[Standing]":
        """Queue a look at a head."""
        span = _wait("barrier")
        return _ending(span, self.probes.submit(Asked(probe, span)))

    def load(self, key: RunKey) -> "asyncio.Future[LoadedState]":
        """Queue a load of the newest state."""
        span = _wait("load_newest")
        return _ending(span, self.loads.submit(Asked(key, span)))


def _wait(operation: str) -> Span | None:
    span = waiting(names.STORE)
    if span is not None:
        span.attributes[names.DB_OPERATION] = operation
    return span


def _ending(span: Span | None, future: "asyncio.Future[R]") -> "asyncio.Future[R]":
    """Let the span of a wait end with it."""
    if span is not None:

        def end(done: "asyncio.Future[R]") -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                span.fail(error_type_of(error))
            span.end()

        future.add_done_callback(end)
    return future


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
        with shared(names.COMMIT, (queued.span for queued in batch)):
            return await store.append_many([queued.append for queued in batch])

    async def look(batch: Sequence[Asked[Probe]]) -> Sequence[Standing]:
        with shared(names.READ, (asked.span for asked in batch)):
            return await store.barrier([asked.item for asked in batch])

    async def load(batch: Sequence[Asked[RunKey]]) -> Sequence[LoadedState | StateError]:
        with shared(names.READ, (asked.span for asked in batch)):
            return await store.load_newest([asked.item for asked in batch])

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
    probes: GroupCommit[Asked[Probe], Standing] = GroupCommit(
        look, limits=limits, monotonic_s=monotonic_s
    )
    loads: GroupCommit[Asked[RunKey], LoadedState] = GroupCommit(
        load, limits=replace(limits, max_items=LOADS), monotonic_s=monotonic_s
    )
    async with probes, loads, saves:
        yield Groups(saves, probes, loads)
