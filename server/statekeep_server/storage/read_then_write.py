"""Saves of a store that remembers nothing: what stands is read, and written where it still stands.

PostgreSQL only. One connection, two statements: the barrier's read of the head, and the one
statement that moves it (`one_statement`), a transaction of its own. The locked save (`appending`)
takes a transaction of seven, and stays for everything else: later attempts, batches, a head that
moved or is held by somebody, an earlier result, a read that failed.
"""

import time
from collections.abc import Callable

from statekeep_server.domain.model import SaveResult
from statekeep_server.service.ports import Append, Probe, Standing
from statekeep_server.storage.engine import Engines
from statekeep_server.storage.known_heads import DatabaseClock, KnownHeads
from statekeep_server.storage.lane import RAW_ERRORS, RawStatement, Wire, one_wire
from statekeep_server.storage.one_statement import Makers, OneStatement
from statekeep_server.storage.reading import Reading
from statekeep_server.storage.translate import diagnose, unavailable

ONE_HEAD_BYTES = 1024 * 1024
"""Room for the largest head."""


class ReadThenWrite:
    """Saves one state at a time."""

    def __init__(
        self, engines: Engines, reading: Reading, makers: Makers, new_id: Callable[[int], str]
    ) -> None:
        self._engines = engines
        self._reading = reading
        self._barrier = RawStatement(reading.barrier_statement)
        self._makers = makers
        self._new_id = new_id
        self.rows_written = 0

    async def append(self, append: Append) -> SaveResult | None:
        """Save what can be saved so; None for a save that must go under the lock.

        Raises StorageUnavailable, or CommitUnknown when the second statement got no answer.
        """
        command = append.save.command
        if command.attempt > 1:
            return None
        probe = Probe(command.key, command.request_id)
        _, parameters = self._reading.barrier([probe])
        async with one_wire(self._engines) as wire:
            try:
                rows = await wire.fetch(self._barrier.text, *self._barrier.arguments(parameters))
            except RAW_ERRORS as error:
                diagnosis = diagnose(error)
                if diagnosis.disconnected or diagnosis.transient:
                    return None  # nothing is done yet, and the locked save tries twice
                failure = unavailable(error)
            else:
                (standing,) = self._reading.standings([probe], rows)
                return await self._write(wire, append, standing)
        # Raised out here, or the driver's error would be its context.
        raise failure

    async def _write(self, wire: Wire, append: Append, standing: Standing) -> SaveResult | None:
        if standing.earlier is not None:
            return None
        known, clock = KnownHeads(ONE_HEAD_BYTES), DatabaseClock(time.monotonic)
        known.read(append.save.command.key, standing.head)
        clock.told(standing.now_us)
        writing = OneStatement(wire, self._makers, known, clock, None, self._new_id)
        (answer,) = await writing.append([append])
        self.rows_written += writing.rows_written
        return answer
