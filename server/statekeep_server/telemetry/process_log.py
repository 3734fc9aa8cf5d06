"""The log of a process that serves: nobody who logs ever waits for it.

Lines go through a bounded queue to a thread of their own, which writes them to standard error. A
pipe that nobody reads, a full disk or a closed file cost lines, which are counted and told once
there is room again, and never a save. Lines of monitoring have a queue of their own before they
come here: a flood of them must not push out an error.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from statekeep_server.telemetry.event_queue import CLOSE_S, EventQueue, QueueStatistics
from statekeep_server.telemetry.log_lines import LineFormat
from statekeep_server.telemetry.save_events import SaveEvent, SaveLines, log_saves
from statekeep_server.telemetry.spans import current_ids

LogFormat = Literal["auto", "text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("auto", "text", "json")
"""`auto` is text on a terminal, and JSON elsewhere."""

TALKATIVE = "alembic.runtime.plugins"
"""A log whose lines about itself at INFO help nobody."""

MAX_LINES = 2_000
"""Lines that wait: half a megabyte as a rule, and what a burst at DEBUG writes in a blink."""

WRITE_BYTES = 4_096
"""What a pipe takes in one piece (PIPE_BUF): lines of several processes are not mixed."""

OURS = "statekeep"


class LineStream:
    """Writes whole lines to a file, from any thread but that of the event loop.

    Args:
        file: Its descriptor; None where there is nobody to write to.
    """

    def __init__(self, file: int | None) -> None:
        self._file = file
        self._writing = threading.Lock()

    def write(self, lines: Sequence[str]) -> None:
        """Write lines; raise OSError where that cannot be done."""
        if self._file is None:
            raise OSError("there is no standard error")
        chunk = b""
        with self._writing:
            for line in lines:
                # What is no Unicode text was escaped before; a line must not fail all the same.
                encoded = line.encode("utf-8", "backslashreplace") + b"\n"
                if chunk and len(chunk) + len(encoded) > WRITE_BYTES:
                    self._write_all(self._file, chunk)
                    chunk = b""
                chunk += encoded
            self._write_all(self._file, chunk)

    @staticmethod
    def _write_all(file: int, chunk: bytes) -> None:
        while chunk:
            chunk = chunk[os.write(file, chunk) :]


class ProcessLog(logging.Handler):
    """The handler of all loggers of a process.

    Lines of others below INFO are left out: some drivers would log states.
    """

    def __init__(self, stream: LineStream, lines: LineFormat) -> None:
        super().__init__()
        self._stream = stream
        self._lines = lines
        self._told_dropped = 0
        self._queue: EventQueue[str] = EventQueue(self._write, name="log", max_items=MAX_LINES)

    def start(self) -> None:
        """Start the thread that writes."""
        self._queue.start()

    def stop(self, timeout_s: float) -> None:
        """Write what is left, but not for longer than this."""
        self._queue.close(timeout_s)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record."""
        ours = record.name.partition(".")[0] == OURS
        if ours or record.levelno >= logging.INFO:
            self._queue.offer(self._lines.line(record))

    def write_saves(self, events: Sequence[SaveEvent]) -> None:
        """Write the lines of monitoring, from its own thread. Raises OSError."""
        self._stream.write([self._lines.event(event) for event in events])

    def statistics(self) -> QueueStatistics:
        """Count what became of the lines."""
        return self._queue.statistics()

    def _write(self, lines: Sequence[str]) -> None:
        dropped = self._queue.statistics().dropped
        if dropped > self._told_dropped:
            lines = [self._lines.line(_lost(dropped - self._told_dropped)), *lines]
        self._stream.write(lines)
        self._told_dropped = dropped


def _lost(lines: int) -> logging.LogRecord:
    return logging.LogRecord(
        "statekeep.log", logging.WARNING, __file__, 0, "Lines were lost: lines=%d", (lines,), None
    )


def process_log() -> ProcessLog | None:
    """Find the log of this process; None where somebody else configured logging."""
    handlers = logging.getLogger().handlers
    return next((each for each in handlers if isinstance(each, ProcessLog)), None)


def save_lines() -> SaveLines:
    """Where monitoring writes: straight to our log, past its queue, or through somebody else's."""
    log = process_log()
    return log_saves if log is None else log.write_saves


@contextmanager
def logging_to_stderr(
    level: str, form: LogFormat = "auto", *, worker: int | None = None, close_s: float = CLOSE_S
) -> Iterator[ProcessLog]:
    """Log to standard error while the context is open; on the way out the last lines are written.

    Args:
        level: The lowest that is logged, until LOG_LEVEL is set for the fleet.
        form: Of the lines.
        worker: The number of the process, where it is one of several.
        close_s: For the last lines.
    """
    error = sys.stderr
    terminal = error is not None and error.isatty()
    lines = LineFormat(
        as_json=form == "json" or (form == "auto" and not terminal),
        coloured=terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb",
        worker=worker,
        ids=current_ids,
    )
    log = ProcessLog(LineStream(None if error is None else error.fileno()), lines)
    root = logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(level)
    logging.getLogger(TALKATIVE).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    log.start()
    try:
        yield log
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(log)
        root.setLevel(before)
        log.stop(close_s)


def lines_dropped() -> int:
    """Count the lines of this process that could not be written in time."""
    logs = (each for each in logging.getLogger().handlers if isinstance(each, ProcessLog))
    return sum(log.statistics().dropped for log in logs)
