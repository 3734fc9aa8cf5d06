"""Write-behind: saves that allow it are answered from memory, and written a moment later.

What is held of a run is one state, the newest. It is written on the path of the run as any
automatic save, on the condition that the head is still the one on which it was buffered: what
another server has written meanwhile is never written over.

Work on a run of which something is held goes one after the other, through a line of its own in
front of the turns of both paths, and writes first what is held. So a run keeps its order, and what
this server wrote itself never counts as somebody else's. Runs of which nothing is held pass by.
Whoever stands in that line runs to its end (`Detached`): a caller that goes away must not let the
next one pass while a write is under way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from statekeep_server.batching.detached import Detached
from statekeep_server.batching.turns import Turn, Turns
from statekeep_server.domain.differ import Changes, changed_fields
from statekeep_server.domain.errors import (
    DeadlineExceeded,
    Overloaded,
    Refused,
    VersionConflict,
)
from statekeep_server.domain.model import (
    Head,
    Outcome,
    Path,
    PreparedSave,
    Reason,
    RunKey,
    SaveCommand,
    SaveResult,
)
from statekeep_server.flags import Flags
from statekeep_server.service.answers import SaveAck, WriteBehindStatistics
from statekeep_server.service.both_paths import BothPaths, next_attempt
from statekeep_server.service.counters import reason_of
from statekeep_server.service.deadline import Deadline
from statekeep_server.service.hold import Hold
from statekeep_server.service.ports import Clock
from statekeep_server.service.state_service import StateService
from statekeep_server.service.write_buffer import (
    FIRST_REST_S,
    Declined,
    Fate,
    WriteBehindLimits,
    WriteBuffer,
)

logger = logging.getLogger("statekeep.write_behind")

T = TypeVar("T")

AT_ONCE = 64
"""States that are being written at the same time: as many as share a transaction."""


class WriteBehind:
    """Buffers saves, writes them, and keeps the order of runs around both.

    Args:
        flags: Of this server: the path on which a state is written is the one that holds then.
    """

    def __init__(
        self,
        paths: BothPaths,
        flags: Callable[[], Flags],
        detached: Detached,
        clock: Clock,
        limits: WriteBehindLimits,
    ) -> None:
        self._paths = paths
        self._flags = flags
        self._detached = detached
        self._clock = clock
        self._buffer = WriteBuffer(limits)
        self._line: Turns[RunKey] = Turns()
        self._stopping = False

    def concerns(self, command: SaveCommand) -> bool:
        """Whether a save goes through the line: it then has to run to its end."""
        return command.write_behind or self._holds(command.key)

    async def save(
        self, path: Path, save: PreparedSave, deadline: Deadline, turn: Turn[RunKey], hold: Hold
    ) -> SaveAck:
        """Save one state: in the buffer, or durably and after what is held of its run."""
        if not self.concerns(save.command):
            return await self._paths.save(
                path, save, lambda service, attempt: service.save(attempt, deadline, turn), hold
            )
        async with self._line.of(save.command.key):
            if save.command.write_behind:
                return await self._buffered_save(path, save, deadline, turn, hold)
            return await self._durable_save(path, save, deadline, turn, hold)

    async def save_many(
        self,
        saves: Sequence[PreparedSave],
        write: Callable[[Sequence[PreparedSave]], Awaitable[Sequence[SaveAck | Exception]]],
    ) -> Sequence[SaveAck | Exception]:
        """Save a batch, durably and after what is held of its runs."""
        if not self._buffer and not self._line:
            return await write(saves)
        async with self._line.of_all({save.command.key for save in saves}):
            attempts = [await self._after_held(save) for save in saves]
            answers = await write(attempts)
            for save, answer in zip(saves, answers, strict=True):
                if isinstance(answer, SaveAck):
                    self._replaced(save.command.key, answer.result)
            return answers

    async def delete_run(self, key: RunKey, delete: Callable[[], Awaitable[T]]) -> T:
        """Delete a run, after what is held of it was written."""
        if not self._holds(key):
            return await delete()
        async with self._line.of(key):
            await self._write(key)
            deleted = await delete()
            self._buffer.settle(key, Fate.COALESCED)
            return deleted

    async def settled(self, key: RunKey) -> None:
        """Write what is held of a run before it is read, if that can be done now."""
        if self._holds(key):
            await self._detached.run(self._write_in_line(key))

    async def write_due(self) -> None:
        """Write all that is due."""
        await self._write_all(self._buffer.due(self._clock.monotonic_s()))

    async def drain(self, timeout_s: float) -> None:
        """Buffer nothing more and write all that is held; what cannot be written is given up."""
        self._stopping = True
        try:
            async with asyncio.timeout(timeout_s):
                while self._buffer:
                    await self._write_all(self._buffer.keys(), hurry=True)
                    if self._buffer:
                        await asyncio.sleep(FIRST_REST_S)
        except TimeoutError:
            pass
        finally:
            for key in self._buffer.keys():  # noqa: SIM118  # a list, for what is let go of
                self._give_up(key, "STOPPING")

    def statistics(self) -> WriteBehindStatistics:
        """Tell what became of all that was buffered."""
        return self._buffer.statistics(self._clock.monotonic_s())

    def _holds(self, key: RunKey) -> bool:
        return key in self._buffer or key in self._line

    async def _buffered_save(
        self, path: Path, save: PreparedSave, deadline: Deadline, turn: Turn[RunKey], hold: Hold
    ) -> SaveAck:
        """Buffer a save, or save it durably where that is not to be."""
        key = save.command.key
        if self._buffer.answered_before(save):
            return SaveAck(_answer(save, None, replayed=True), path)
        held = self._buffer.get(key)
        if held is not None and self._declines(path, save) is None:
            # No database was asked, so the breaker is not told either.
            self._buffer.replace(held, save)
            return SaveAck(_answer(save, held.base), path)
        declined: list[Declined] = []

        async def hold_it(service: StateService, attempt: PreparedSave) -> SaveResult:
            result = await self._try_to_hold(service, attempt, deadline, turn)
            if isinstance(result, SaveResult):
                return result
            declined.append(result)
            return await service.save(await self._after_held(attempt), deadline, turn)

        ack = await self._paths.save(path, save, hold_it, hold)
        if ack.result.outcome is not Outcome.BUFFERED:
            self._buffer.remember(save, buffered=False)
            self._replaced(key, ack.result)
            self._buffer.declined(declined)
        return ack

    async def _try_to_hold(
        self, service: StateService, save: PreparedSave, deadline: Deadline, turn: Turn[RunKey]
    ) -> SaveResult | Declined:
        """Hold the first state of a run, unless the barrier answers or something is against it."""
        why = self._declines(service.path, save)
        if why is not None:
            return why
        standing = await service.before_buffering(save, deadline, turn)
        if isinstance(standing, SaveResult):
            return standing
        if standing is None:
            return Declined.FIRST_SAVE
        why = self._declines(service.path, save)  # others came meanwhile
        if why is not None:
            return why
        self._buffer.put(save, standing, self._clock.monotonic_s())
        return _answer(save, standing)

    async def _durable_save(
        self, path: Path, save: PreparedSave, deadline: Deadline, turn: Turn[RunKey], hold: Hold
    ) -> SaveAck:
        async def after_held(service: StateService, attempt: PreparedSave) -> SaveResult:
            return await service.save(await self._after_held(attempt), deadline, turn)

        ack = await self._paths.save(path, save, after_held, hold)
        self._replaced(save.command.key, ack.result)
        return ack

    def _declines(self, path: Path, save: PreparedSave) -> Declined | None:
        """Say why a save is not buffered; None if it may be."""
        held = self._buffer.get(save.command.key)
        if self._stopping:
            return Declined.STOPPING
        if path is Path.STANDARD:
            return Declined.STANDARD_PATH
        # An earlier attempt may be stored already: only the lock can tell.
        if save.command.attempt > 1 or self._buffer.answered_before(save) is False:
            return Declined.RETRIED
        if held is not None and held.failures:
            return Declined.NOT_WRITABLE
        return None if self._buffer.has_room(save) else Declined.FULL

    async def _after_held(self, save: PreparedSave) -> PreparedSave:
        """Write what is held of a save's run first; where that fails, the save takes its place.

        It then goes through the lock, for an attempt of which nothing is known may still be under
        way: behind the lock it has happened or never will.
        """
        await self._write(save.command.key)
        return next_attempt(save) if save.command.key in self._buffer else save

    def _replaced(self, key: RunKey, result: SaveResult) -> None:
        """Let go of what could not be written before a save that now stands in its place."""
        if not result.replayed:  # an earlier save does not
            self._buffer.settle(key, Fate.COALESCED)

    async def _write_all(self, keys: Sequence[RunKey], *, hurry: bool = False) -> None:
        before = self.statistics().flush_failures
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            await asyncio.wait(
                [self._detached.start(self._write_in_line(key, hurry=hurry)) for key in some]
            )
        failures = self.statistics().flush_failures - before
        if failures:
            logger.warning(
                "Write-behind could not write now: failed=%d held=%d", failures, len(self._buffer)
            )

    async def _write_in_line(self, key: RunKey, *, hurry: bool = False) -> None:
        async with self._line.of(key):
            await self._write(key, hurry=hurry)

    async def _write(self, key: RunKey, *, hurry: bool = False) -> None:
        """Write what is held of a run. It stays held where that fails, or failed a moment ago."""
        held = self._buffer.get(key)
        now_s = self._clock.monotonic_s()
        if held is None or (held.failures and now_s < held.due_s and not hurry):
            return
        command = replace(
            held.save.command,
            write_behind=False,
            expected_version=held.base.version,
            attempt=1 + held.failures,
        )
        turn = Turn(self._paths.standard.turns, key)
        forever = Deadline(self._clock, None)
        try:
            ack = await self._paths.save(
                self._flags().path_of(key),
                replace(held.save, command=command),  # the fingerprint stays that of the request
                lambda service, attempt: service.save(attempt, forever, turn),
            )
        except VersionConflict:
            self._buffer.settle(key, Fate.SUPERSEDED)
        except Exception as error:  # noqa: BLE001  # whatever it is, the state must not be forgotten
            final = isinstance(error, Refused) and not isinstance(
                error, Overloaded | DeadlineExceeded
            )
            if not self._buffer.put_off(held, self._clock.monotonic_s()) or final:
                self._give_up(key, reason_of(error))
        else:
            self._buffer.settle(key, Fate(ack.result.outcome))
        finally:
            turn.end()

    def _give_up(self, key: RunKey, reason: str) -> None:
        if key not in self._buffer:
            return  # at the end of a drain, by whom nobody waits any more
        self._buffer.settle(key, Fate.LOST)
        logger.error("Write-behind gave up a state: run_id=%s reason=%s", key.run_id, reason)


def _answer(save: PreparedSave, base: Head | None, *, replayed: bool = False) -> SaveResult:
    """Answer a save that is buffered, with what it changes of the head where that is known."""
    if base is None:
        changed = Changes((), truncated=True)
    else:
        changed = changed_fields(base.field_digests, save.field_digests)
    return SaveResult(
        outcome=Outcome.BUFFERED,
        reason=Reason.WRITE_BEHIND,
        snapshot_id="",
        version=0,
        state_sha256=save.state_sha256,
        comparison_hash=save.comparison_hash,
        changed_fields=changed.names,
        changed_fields_truncated=changed.truncated,
        request_id=save.command.request_id,
        replayed=replayed,
    )
