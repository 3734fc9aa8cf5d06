"""The last resort of a server that is to stop: its process ends, whatever hangs.

What closes has bounds of its own, but before a database that hangs they are spent one after the
other, connection by connection, for a minute and more. Nothing that was acknowledged depends on
their end, so a process that is late leaves behind what hangs.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from statekeep_server.cli.errors import FAILED
from statekeep_server.telemetry.event_queue import CLOSE_S
from statekeep_server.telemetry.process_log import process_log

logger = logging.getLogger("statekeep.ending")

CLOSING_S = 8.0
"""After the drain: 5 s for buffered states, 2 s for telemetry, 1 s for monitoring.

With the default drain and a second for the log that is less than the 30 s of Kubernetes.
"""

FORCED_S = 2.0
"""After a second signal: what a database that answers needs for transactions that have begun, and
twice what buffered states are given then, so that it can be said which are lost."""

FORCED_CODE = 130
"""The exit code after a second signal, as shells expect it."""

Stopping = Callable[[bool], None]
"""Called when a signal comes; with True for the second one."""


@contextmanager
def bounded_end(drain_timeout_s: float) -> Iterator[Stopping]:
    """Yield what is told of signals: from then on the process has its bound.

    Timers of threads, because the event loop may be what hangs. Whoever leaves the context in time
    ends in the usual way.
    """
    timers: list[threading.Timer] = []

    def stopping(forced: bool) -> None:
        bound_s, code = (FORCED_S, FORCED_CODE) if forced else (drain_timeout_s + CLOSING_S, FAILED)
        timer = threading.Timer(min(bound_s, threading.TIMEOUT_MAX), _end, (code,))
        timer.daemon = True  # it must not be what the process waits for
        timer.start()
        timers.append(timer)

    try:
        yield stopping
    finally:
        for timer in timers:
            timer.cancel()


def _end(code: int) -> None:
    logger.error("Ended without closing everything: something hangs")
    log = process_log()
    if log is not None:
        log.stop(CLOSE_S)
    os._exit(code)
