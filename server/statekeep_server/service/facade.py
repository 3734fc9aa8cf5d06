"""The front of the service: chooses a path once per request, and falls back to standard.

A fallback is for "the optimized path could not run". A save that was refused (bad field, conflict,
overload, deadline) is refused on both paths alike and does not fall back. The standard attempt
carries the same request id and the next attempt number, so that a save whose first commit was
lost on the way back happens once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from statekeep_server.batching.detached import Detached
from statekeep_server.batching.turns import Turn
from statekeep_server.domain.errors import (
    AtomicBatchFailed,
    DeadlineExceeded,
    Overloaded,
    Refused,
    StateError,
    StorageUnavailable,
)
from statekeep_server.domain.model import (
    LoadedState,
    Path,
    PreparedSave,
    RunKey,
    SaveCommand,
    SaveResult,
    Selector,
)
from statekeep_server.domain.policy import persist_always
from statekeep_server.flags import FlagChange, Flags
from statekeep_server.service.admission import Admission
from statekeep_server.service.answers import FallbackCause, SaveAck, ServiceStatistics
from statekeep_server.service.arms import Arms
from statekeep_server.service.breaker import Breaker
from statekeep_server.service.causes import describe, loggable, named_error, with_both_causes
from statekeep_server.service.counters import reason_of
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.groups import is_the_databases_fault
from statekeep_server.service.hold import Hold
from statekeep_server.service.ports import Clock, RunCursor, RunPage, SnapshotPage
from statekeep_server.service.state_service import StateService
from statekeep_server.service.statistics import service_statistics

logger = logging.getLogger("statekeep.facade")

T = TypeVar("T")


class StateFacade:
    """What the transport and the in-process interface call.

    Args:
        arms: Count by the path that the flags chose, and give the flags, once per request.
        detached: Runs each write to its end, also when its caller goes away.
        admission: Refuses what is more than this server holds at once.
    """

    def __init__(
        self,
        *,
        standard: StateService,
        optimized: StateService,
        arms: Arms,
        breaker: Breaker,
        detached: Detached,
        clock: Clock,
        new_id: Callable[[], str],
        admission: Admission,
    ) -> None:
        self._standard = standard
        self._optimized = optimized
        self._arms = arms
        self._flags = arms.flags
        self._breaker = breaker
        self._detached = detached
        self._clock = clock
        self._new_id = new_id
        self._admission = admission
        self._checking: asyncio.Task[None] | None = None
        self._started_at_us = clock.now_us()

    def path_now(self) -> Path:
        """The path of what is about no run."""
        return self._flags().path

    @property
    def saves_under_way(self) -> int:
        """How many saves were let in and are not answered yet."""
        return self._admission.saves

    async def save(
        self, command: SaveCommand, *, deadline_s: float | None = None, large: bool = False
    ) -> SaveAck:
        """Save one state; raise a StateError when it is not acknowledged.

        `large` allows a state that came in chunks.
        """
        path, save, deadline = await self._admit(command, deadline_s, large=large)
        saving = self._save(path, save, deadline)
        # A call that is cancelled must not cancel a transaction; groups have theirs to themselves.
        grouped = self._service(path).groups is not None
        return await (saving if grouped else self._detached.run(saving))

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
        deadline = Deadline.after(self._clock, deadline_s)
        path = self._flags().path_of(command.key)
        service = self._service(path)
        command = self._named(command)
        size_bytes = len(command.state)
        try:
            never_skipped = persist_always(command) is not None
            self._admission.enter(1, size_bytes, reserved=never_skipped)
        except StateError as error:
            service.counters.failed(error)
            raise
        save: PreparedSave | None = None
        try:
            save = await service.prepare(command, large=large)
        except StateError as error:
            service.counters.failed(error)
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
                saves[index] = await self._service(path).prepare(self._named(command))
            except StateError as error:
                self._service(flags.path).counters.failed(error)
                if atomic:
                    raise AtomicBatchFailed(index, error) from error
                answers[index] = error
        prepared = list(saves.values())
        size_bytes = sum(len(save.command.state) for save in prepared)
        self._admission.enter(len(prepared), size_bytes, reserved=False)
        acks = await self._detached.run(
            self._admitted(
                len(prepared),
                size_bytes,
                self._save_split(flags, prepared, deadline, atomic=atomic),
            )
        )
        for (index, save), ack in zip(saves.items(), acks, strict=True):
            answers[index] = named_error(ack, save) if isinstance(ack, StateError) else ack
        return [answer for answer in answers if answer is not None]

    async def save_in_session(self, command: SaveCommand, session: object) -> SaveAck:
        """Stage a save on a caller's session (see `ports.StateStore.append_in_session`)."""
        path = self._flags().path_of(command.key)
        save = await self._service(path).prepare(self._named(command))
        return await self._with_fallback(
            path,
            save,
            lambda service, attempt: service.save_in_session(attempt, session),
        )

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
        return await self._read(lambda service: service.load(key, selector, session=session), key)

    async def list_snapshots(
        self, key: RunKey, *, limit: int, before_version: int | None = None
    ) -> SnapshotPage:
        """List live snapshots of a run, newest first."""
        return await self._read(
            lambda service: service.store.list_snapshots(
                key, limit=limit, before_version=before_version
            )
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
        return await self._read(
            lambda service: service.store.list_runs(
                tenant, limit=limit, thread_id=thread_id, user_id=user_id, after=after
            )
        )

    async def delete_run(self, key: RunKey, *, deadline_s: float | None = None) -> int:
        """Delete a run's snapshots; return how many there were."""
        Deadline.after(self._clock, deadline_s).check()
        return await self._detached.run(self._read(lambda service: service.delete_run(key), key))

    async def check(self) -> None:
        """Raise unless the path that serves now can read and write its database.

        One check at a time, which goes on where its caller gives up waiting: callers that ask
        again while the database hangs must not take a connection each.
        """
        if self._checking is None or self._checking.done():
            self._checking = self._detached.start(self._service(self.path_now()).store.check())
        await asyncio.shield(self._checking)

    def statistics(self) -> ServiceStatistics:
        """Count what this server did since it started."""
        services = (self._standard, self._optimized)
        return service_statistics(services, self._arms, self._breaker, self._started_at_us)

    def flag_changed(self, change: FlagChange) -> None:
        """Somebody changed a flag: after a trip, the optimized path may be meant to serve again."""
        self._arms.trip.follow(change)

    def _service(self, path: Path) -> StateService:
        return self._optimized if path is Path.OPTIMIZED else self._standard

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
        turn = Turn(self._standard.turns, command.key)
        hold = Hold(turn, self._admission, len(command.state))
        started_s = self._clock.monotonic_s()
        try:
            ack = await self._with_fallback(
                path, save, lambda service, attempt: service.save(attempt, deadline, turn), hold
            )
        except Exception as error:
            self._arms.failed(path, error)
            if isinstance(error, StateError):
                # A caller that gave no id learns the one to retry with.
                raise named_error(error, save) from error.__cause__
            raise
        else:
            self._arms.answered(path, ack, self._clock.monotonic_s() - started_s)
            return ack
        finally:
            hold.release()

    async def _save_split(
        self,
        flags: Flags,
        saves: Sequence[PreparedSave],
        deadline: Deadline,
        *,
        atomic: bool,
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch, each run on its path; the saves of a run keep their order.

        An atomic batch is one transaction, so on one path: standard, unless all runs are optimized.
        """
        paths = [flags.path_of(save.command.key) for save in saves]
        if atomic or len(set(paths)) < 2:
            path = Path.STANDARD if Path.STANDARD in paths else Path.OPTIMIZED
            return await self._save_many(path, saves, deadline, atomic=atomic)
        answers: dict[int, SaveAck | Exception] = {}
        for path in Path:
            indexes = [index for index, other in enumerate(paths) if other is path]
            part = [saves[index] for index in indexes]
            try:
                acks = await self._save_many(path, part, deadline, atomic=False)
            except Exception as error:  # noqa: BLE001  # the other part is told its own answer
                acks = [error] * len(part)
            answers.update(zip(indexes, acks, strict=True))
        return [answers[index] for index in range(len(saves))]

    async def _save_many(
        self, path: Path, saves: Sequence[PreparedSave], deadline: Deadline, *, atomic: bool
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch on one path; when the path fails, start again where it may still work."""
        service = self._service(path)
        try:
            if path is Path.OPTIMIZED:
                self._breaker.admit()
            results = await service.save_many(saves, deadline, atomic=atomic)
        except (Refused, AtomicBatchFailed) as error:
            self._judge(path, error)
            raise
        except Exception as first:
            self._judge(path, first)
            if path is Path.OPTIMIZED:
                return await self._save_all_standard(saves, deadline, first, atomic=atomic)
            if atomic or is_the_databases_fault(first):
                service.counters.failed(first)
                raise
            return [await self._save_alone(save, deadline) for save in saves]
        self._judge(path, None)
        return _acks(results, path)

    async def _save_all_standard(
        self,
        saves: Sequence[PreparedSave],
        deadline: Deadline,
        first: Exception,
        *,
        atomic: bool,
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch through standard after the optimized path failed."""
        cause = self._falling_back(first)
        attempts = [_next_attempt(save) for save in saves]
        try:
            results = await self._standard.save_many(attempts, deadline, atomic=atomic)
        except (Refused, AtomicBatchFailed):
            raise
        except Exception as second:  # noqa: BLE001  # the fallback keeps it
            if atomic or is_the_databases_fault(second):
                self._standard.counters.failed(second)
                raise with_both_causes(first, second) from first
            return [await self._save_alone(save, deadline, cause) for save in attempts]
        return _acks(results, Path.STANDARD, cause)

    async def _save_alone(
        self, save: PreparedSave, deadline: Deadline, cause: FallbackCause | None = None
    ) -> SaveAck | Exception:
        """Save one item of a batch that failed as a whole: the poisoned one alone fails."""
        try:
            async with self._standard.turns.of(save.command.key) as turn:
                result = await self._standard.save(_next_attempt(save), deadline, turn)
        except Exception as error:  # noqa: BLE001  # answered to the item's own caller
            self._standard.counters.failed(error)
            return error
        return SaveAck(result, Path.STANDARD, cause)

    async def _with_fallback(
        self,
        path: Path,
        save: PreparedSave,
        serve: Callable[[StateService, PreparedSave], Awaitable[SaveResult]],
        hold: Hold | None = None,
    ) -> SaveAck:
        """Serve a save on its path, and through standard when the optimized one cannot run."""
        service = self._service(path)
        try:
            if path is Path.OPTIMIZED:
                self._breaker.admit()
            result = await serve(service, save)
        except Refused as error:
            self._judge(path, error)
            service.counters.failed(error)
            raise
        except Exception as first:
            self._judge(path, first)
            if path is Path.STANDARD:
                service.counters.failed(first)
                raise
            standard = self._serve_standard(save, serve, first, hold and hold.share())
            return await (standard if hold is None else self._detached.run(standard))
        self._judge(path, None)
        return SaveAck(result, path)

    async def _serve_standard(
        self,
        save: PreparedSave,
        serve: Callable[[StateService, PreparedSave], Awaitable[SaveResult]],
        first: Exception,
        hold: Hold | None,
    ) -> SaveAck:
        cause = self._falling_back(first)
        try:
            result = await serve(self._standard, _next_attempt(save))
        except Exception as second:  # noqa: BLE001  # the fallback keeps it
            self._standard.counters.failed(second)
            raise with_both_causes(first, second) from first
        finally:
            if hold is not None:
                hold.release()
        return SaveAck(result, Path.STANDARD, cause)

    def _falling_back(self, first: Exception) -> FallbackCause:
        """Keep the first error: in the log with its traceback, in the counts, for the answer."""
        reason = reason_of(first)
        # A resting path is no news, and a traceback per save would drown the one that matters.
        logger.error(
            "Optimized persistence failed: reason=%s",
            reason,
            exc_info=None if reason == "CIRCUIT_OPEN" else loggable(first),
        )
        self._optimized.counters.fell_back(first)
        return FallbackCause(reason, describe(first))

    def _judge(self, path: Path, error: Exception | None) -> None:
        """Tell the breaker what a request says about the optimized path."""
        if path is Path.STANDARD or reason_of(error or Refused()) == "CIRCUIT_OPEN":
            return
        if isinstance(error, DeadlineExceeded | Overloaded):
            self._breaker.released()
        elif error is None or isinstance(error, Refused | AtomicBatchFailed):
            self._breaker.succeeded()
        else:
            self._breaker.failed()

    async def _read(
        self, ask: Callable[[StateService], Awaitable[T]], key: RunKey | None = None
    ) -> T:
        """Ask the path of a run; a failure of the optimized one is asked again of standard.

        Each path has a pool of its own, so that an exhausted pool of one leaves the other.
        """
        flags = self._flags()
        path = flags.path if key is None else flags.path_of(key)
        try:
            return await ask(self._service(path))
        except StorageUnavailable as first:
            if path is Path.STANDARD:
                raise
            self._falling_back(first)
            try:
                return await ask(self._standard)
            except StateError as second:
                raise with_both_causes(first, second) from first


def _acks(
    results: Sequence[SaveResult | Exception], path: Path, cause: FallbackCause | None = None
) -> Sequence[SaveAck | Exception]:
    """Turn the results of a batch into answers."""
    return [
        SaveAck(result, path, cause) if isinstance(result, SaveResult) else result
        for result in results
    ]


def _next_attempt(save: PreparedSave) -> PreparedSave:
    """Make the next attempt of the same save."""
    return replace(save, command=replace(save.command, attempt=save.command.attempt + 1))
