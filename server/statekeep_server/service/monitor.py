"""Fire-and-forget monitoring: a line for each save, which no save ever waits for.

A save leaves a tuple in a bounded queue, whose own thread writes the lines (see
`telemetry.event_queue`). Switched off, a save pays one look at the flag.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from statekeep_server.domain.errors import AtomicBatchFailed
from statekeep_server.domain.model import Outcome, Path, PreparedSave, SaveCommand
from statekeep_server.flags import Flags
from statekeep_server.service import decisions
from statekeep_server.service.answers import SaveAck
from statekeep_server.service.counters import reason_of
from statekeep_server.service.ports import Clock
from statekeep_server.telemetry.event_queue import EventQueue, QueueStatistics, open_event_queue
from statekeep_server.telemetry.process_log import save_lines
from statekeep_server.telemetry.save_events import (
    BUFFERED_SAVE,
    LOGGER,
    OPTIMIZED_SAVE,
    SKIPPED_SAVE,
    STANDARD_SAVE,
    SaveEvent,
    SaveLines,
)

OPERATIONS = {
    Outcome.PERSISTED: OPTIMIZED_SAVE,
    Outcome.SKIPPED: SKIPPED_SAVE,
    Outcome.BUFFERED: BUFFERED_SAVE,
}
"""Of the optimized path."""


class Monitor:
    """Says of each save what became of it.

    Args:
        queue: Takes the events.
        wanted: OPTIMIZED_PERSISTENCE_MONITORING as it is now.
    """

    def __init__(
        self, clock: Clock, queue: EventQueue[SaveEvent], *, wanted: Callable[[], bool]
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._wanted = wanted

    def answered(self, command: SaveCommand, ack: SaveAck, duration_s: float) -> None:
        """Tell of an acknowledged save."""
        if decisions.wanted():
            decisions.decided(command, ack, duration_s)
        if not self._is_on():
            return
        result, cause = ack.result, ack.fallback_cause
        operation = STANDARD_SAVE if ack.path is Path.STANDARD else OPERATIONS[result.outcome]
        self._queue.offer(
            SaveEvent(
                self._clock.now_us(),
                operation,
                command.key.run_id,
                duration_s,
                len(result.changed_fields),
                "" if cause is None else cause.reason,
                "",
            )
        )

    def failed(
        self, path: Path, command: SaveCommand, error: BaseException, duration_s: float
    ) -> None:
        """Tell of a save that was not acknowledged; `path` is the one that its flags chose."""
        if decisions.wanted():
            decisions.refused(path, command, error, duration_s)
        if not self._is_on():
            return
        operation = STANDARD_SAVE if path is Path.STANDARD else OPTIMIZED_SAVE
        self._queue.offer(
            SaveEvent(
                self._clock.now_us(),
                operation,
                command.key.run_id,
                duration_s,
                None,
                "",
                reason_of(error),
            )
        )

    async def single(self, path: Path, command: SaveCommand, saving: Awaitable[SaveAck]) -> SaveAck:
        """Wait for a save, and tell of it."""
        started_s = self._clock.monotonic_s()
        try:
            ack = await saving
        except Exception as error:
            self.failed(path, command, error, self._clock.monotonic_s() - started_s)
            raise
        self.answered(command, ack, self._clock.monotonic_s() - started_s)
        return ack

    async def batch(
        self,
        flags: Flags,
        saves: Sequence[PreparedSave],
        saving: Awaitable[Sequence[SaveAck | Exception]],
    ) -> Sequence[SaveAck | Exception]:
        """Wait for a batch, and tell of each of its saves, with its share of the time."""
        started_s = self._clock.monotonic_s()
        try:
            answers = await saving
        except Exception as error:
            cause = error.error if isinstance(error, AtomicBatchFailed) else error
            self._all(flags, saves, [cause] * len(saves), self._clock.monotonic_s() - started_s)
            raise
        self._all(flags, saves, answers, self._clock.monotonic_s() - started_s)
        return answers

    def _all(
        self,
        flags: Flags,
        saves: Sequence[PreparedSave],
        answers: Sequence[SaveAck | Exception],
        duration_s: float,
    ) -> None:
        for save, answer in zip(saves, answers, strict=True):
            command, each_s = save.command, duration_s / len(saves)
            if isinstance(answer, SaveAck):
                self.answered(command, answer, each_s)
            else:
                self.failed(flags.path_of(command.key), command, answer, each_s)

    def statistics(self) -> QueueStatistics:
        """Count what became of the lines."""
        return self._queue.statistics()

    def _is_on(self) -> bool:
        return self._wanted() and LOGGER.isEnabledFor(logging.INFO)


@asynccontextmanager
async def open_monitor(
    clock: Clock,
    *,
    wanted: Callable[[], bool],
    write: SaveLines | None = None,
) -> AsyncIterator[Monitor]:
    """Open a monitor; on the way out the last lines are written, within a bound.

    `write` is by default the log of the process.
    """
    async with open_event_queue(write or save_lines(), name="monitoring") as queue:
        yield Monitor(clock, queue, wanted=wanted)
