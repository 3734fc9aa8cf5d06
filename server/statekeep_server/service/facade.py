"""The front of the service: lets requests in, and chooses the path of each, once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from statekeep_server.batching.detached import Detached
from statekeep_server.batching.turns import Turn
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    StateError,
)
from statekeep_server.domain.model import (
    LoadedState,
    Path,
    PreparedSave,
    RunKey,
    SaveCommand,
    Selector,
)
from statekeep_server.domain.policy import persist_always
from statekeep_server.flags import FlagChange
from statekeep_server.service.admission import Admission
from statekeep_server.service.answers import SaveAck, ServiceStatistics
from statekeep_server.service.arms import Arms
from statekeep_server.service.batches import Batches
from statekeep_server.service.both_paths import BothPaths
from statekeep_server.service.causes import named_error
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.hold import Hold
from statekeep_server.service.measures import readings
from statekeep_server.service.monitor import Monitor
from statekeep_server.service.ports import Clock, RunCursor, RunPage, SnapshotPage
from statekeep_server.service.statistics import service_statistics
from statekeep_server.service.tracing import traced_batch, traced_load
from statekeep_server.service.write_behind import WriteBehind
from statekeep_server.telemetry.measures import Reading
from statekeep_server.telemetry.spans import current

logger = logging.getLogger("statekeep.facade")

T = TypeVar("T")


class StateFacade:
    """What the transport and the in-process interface call.

    Args:
        arms: Count by the path that the flags chose, and give the flags, once per request.
        detached: Runs each write to its end, also when its caller goes away.
        admission: Refuses what is more than this server holds at once.
        monitor: Is told of every save.
        write_behind: Holds what may be written later; everything about a run asks it first.
    """

    def __init__(
        self,
        *,
        paths: BothPaths,
        arms: Arms,
        detached: Detached,
        clock: Clock,
        new_id: Callable[[], str],
        admission: Admission,
        monitor: Monitor,
        write_behind: WriteBehind,
    ) -> None:
        self._paths = paths
        self.write_behind = write_behind
        self._batches = Batches(paths)
        self._arms = arms
        self._flags = arms.flags
        self._detached = detached
        self._clock = clock
        self._new_id = new_id
        self._admission = admission
        self._monitor = monitor
        self._checking: asyncio.Task[None] | None = None
        self._started_at_us = clock.now_us()

    def path_now(self) -> Path:
        """The path of what is about no run."""
        return self._flags().path

    async def save(
        self, command: SaveCommand, *, deadline_s: float | None = None, large: bool = False
    ) -> SaveAck:
        """Save one state; raise a StateError when it is not acknowledged.

        `large` allows a state that came in chunks.
        """
        path, save, deadline = await self._admit(command, deadline_s, large=large)
        saving = self._save(path, save, deadline)
        # A call that is cancelled must not cancel a transaction; groups have theirs to themselves.
        grouped = self._paths.service(path).groups is not None
        inline = grouped and not self.write_behind.concerns(save.command)
        return await (saving if inline else self._detached.run(saving))

    async def begin_save(
        self, command: SaveCommand, *, deadline_s: float | None = None
    ) -> asyncio.Task[SaveAck]:
        """Begin a save, which then goes on whatever becomes of the caller; raise what `save` does.

        Saves of a run are applied in the order in which this returns. Wait with a shield:
        cancelling the task is cancelling the save.
        """
        path, save, deadline = await self._admit(command, deadline_s, large=False)
        return self._detached.start(self._save(path, save, deadline))

    async def _admit(
        self, command: SaveCommand, deadline_s: float | None, *, large: bool
    ) -> tuple[Path, PreparedSave, Deadline]:
        """Let a save in and prepare it; `_save` counts it out."""
        started_s = self._clock.monotonic_s()
        deadline = Deadline.after(self._clock, deadline_s)
        path = self._flags().path_of(command.key)
        service = self._paths.service(path)
        command = self._named(command)
        size_bytes = len(command.state)
        try:
            never_skipped = persist_always(command) is not None
            self._admission.enter(1, size_bytes, reserved=never_skipped)
        except StateError as error:
            service.counters.failed(error)
            self._monitor.failed(path, command, error, self._since(started_s))
            raise
        save: PreparedSave | None = None
        try:
            save = await service.prepare(command, large=large)
        except StateError as error:
            service.counters.failed(error)
            self._monitor.failed(path, command, error, self._since(started_s))
            raise
        finally:
            if save is None:
                self._admission.leave(1, size_bytes)
        return path, save, deadline

    async def save_many(
        self,
        commands: Sequence[SaveCommand | StateError],
        *,
        atomic: bool = False,
        deadline_s: float | None = None,
    ) -> Sequence[SaveAck | Exception]:
        """Save many states: all or none when `atomic`, otherwise each for itself.

        The i-th answer is that of the i-th command; one that could not even be read comes as its
        error. Raises AtomicBatchFailed when `atomic` and one fails, and nothing is then kept.
        """
        deadline = Deadline.after(self._clock, deadline_s)
        flags = self._flags()
        answers: list[SaveAck | Exception | None] = [None] * len(commands)
        saves: dict[int, PreparedSave] = {}
        for index, command in enumerate(commands):
            try:
                if isinstance(command, StateError):
                    raise command
                path = flags.path_of(command.key)
                saves[index] = await self._paths.service(path).prepare(self._named(command))
            except StateError as error:
                self._paths.service(flags.path).counters.failed(error)
                if atomic:
                    raise AtomicBatchFailed(index, error) from error
                answers[index] = error
        prepared = list(saves.values())
        size_bytes = sum(len(save.command.state) for save in prepared)
        try:
            self._admission.enter(len(prepared), size_bytes, reserved=False)
        except StateError as error:
            for save in prepared:  # each is one that was refused
                self._paths.service(flags.path_of(save.command.key)).counters.failed(error)
            raise
        saving = self._admitted(
            len(prepared),
            size_bytes,
            self._monitor.batch(
                flags,
                prepared,
                self.write_behind.save_many(
                    prepared,
                    lambda saves: self._batches.save(flags, saves, deadline, atomic=atomic),
                ),
            ),
        )
        span = current()
        acks = await self._detached.run(
            saving if span is None else traced_batch(span, len(prepared), saving)
        )
        for (index, save), ack in zip(saves.items(), acks, strict=True):
            answers[index] = named_error(ack, save) if isinstance(ack, StateError) else ack
        return [answer for answer in answers if answer is not None]

    async def save_in_session(self, command: SaveCommand, session: object) -> SaveAck:
        """Stage a save on a caller's session (see `ports.StateStore.append_in_session`)."""
        path = self._flags().path_of(command.key)
        save = await self._paths.service(path).prepare(self._named(command))
        saving = self._paths.save(
            path,
            save,
            lambda service, attempt: service.save_in_session(attempt, session),
        )
        return await self._monitor.single(path, command, saving)

    async def load(
        self,
        key: RunKey,
        selector: Selector,
        *,
        deadline_s: float | None = None,
        session: object | None = None,
    ) -> LoadedState:
        """Load one live snapshot."""
        Deadline.after(self._clock, deadline_s).check()
        await self.write_behind.settled(key)
        path = self._flags().path_of(key)
        loading = self._paths.read(
            path, lambda service: service.load(key, selector, session=session)
        )
        span = current()
        return await (loading if span is None else traced_load(span, path, key, loading))

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        """List live snapshots of a run, newest first."""
        await self.write_behind.settled(key)
        return await self._paths.read(
            self.path_now(),
            lambda service: service.store.list_snapshots(
                key, limit=limit, before_version=before_version
            ),
        )

    async def list_runs(
        self,
        tenant: str,
        *,
        limit: int,
        thread_id: str | None = None,
        user_id: str | None = None,
        after: RunCursor | None = None,
    ) -> RunPage:
        """List runs, newest write first."""
        return await self._paths.read(
            self.path_now(),
            lambda service: service.store.list_runs(
                tenant, limit=limit, thread_id=thread_id, user_id=user_id, after=after
            ),
        )

    async def delete_run(self, key: RunKey, *, deadline_s: float | None = None) -> int:
        """Delete a run's snapshots; return how many there were."""
        Deadline.after(self._clock, deadline_s).check()
        path = self._flags().path_of(key)
        deleting = self.write_behind.delete_run(
            key, lambda: self._paths.read(path, lambda service: service.delete_run(key))
        )
        return await self._detached.run(deleting)

    async def check(self) -> None:
        """Raise unless the path that serves now can read and write its database.

        One check at a time, which goes on where its caller gives up waiting: callers that ask
        again while the database hangs must not take a connection each.
        """
        if self._checking is None or self._checking.done():
            self._checking = self._detached.start(
                self._paths.service(self.path_now()).store.check()
            )
        await asyncio.shield(self._checking)

    def statistics(self) -> ServiceStatistics:
        """Count what this server did since it started."""
        return service_statistics(
            self._paths,
            self._arms,
            self._monitor,
            self.write_behind.statistics(),
            self._started_at_us,
        )

    def readings(self) -> list[Reading]:
        """Read what this server measures."""
        return readings(
            self._paths,
            self._arms,
            self._admission,
            self._monitor.statistics(),
            self.write_behind.statistics(),
        )

    def flag_changed(self, change: FlagChange) -> None:
        """Somebody changed a flag: after a trip, the optimized path may be meant to serve again."""
        self._arms.trip.follow(change)

    def _since(self, started_s: float) -> float:
        return self._clock.monotonic_s() - started_s

    def _named(self, command: SaveCommand) -> SaveCommand:
        """Give a save without a request id one, so that a fallback is the same save."""
        return command if command.request_id else replace(command, request_id=self._new_id())

    async def _admitted(self, saves: int, size_bytes: int, work: Awaitable[T]) -> T:
        """Do the work of saves that were let in, and count them out."""
        try:
            return await work
        finally:
            self._admission.leave(saves, size_bytes)

    async def _save(self, path: Path, save: PreparedSave, deadline: Deadline) -> SaveAck:
        """Save what is counted already, and count it out."""
        command = save.command
        # The turn is held until the save is queued, and kept for its fallback where it cannot be.
        turn = Turn(self._paths.standard.turns, command.key)
        hold = Hold(turn, self._admission, len(command.state))
        started_s = self._clock.monotonic_s()
        try:
            ack = await self.write_behind.save(path, save, deadline, turn, hold)
        except Exception as error:
            self._arms.failed(path, error)
            self._monitor.failed(path, command, error, self._since(started_s))
            if isinstance(error, StateError):
                # A caller that gave no id learns the one to retry with.
                raise named_error(error, save) from error.__cause__
            raise
        else:
            duration_s = self._since(started_s)
            self._arms.answered(path, ack, duration_s)
            self._monitor.answered(command, ack, duration_s)
            return ack
        finally:
            hold.release()
