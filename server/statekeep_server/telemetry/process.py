"""What is known of the process itself."""

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from statekeep_server.telemetry import names
from statekeep_server.telemetry.measures import Points, Reading, Source, one
from statekeep_server.telemetry.process_log import lines_dropped

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = resource.getpagesize()


def process_source(*, version: str, worker: int | None, monotonic_s: Callable[[], float]) -> Source:
    """Make the source of what is known of this process, which starts now."""
    started_s = monotonic_s()
    info: Points = {(version, "" if worker is None else str(worker)): 1.0}

    def readings() -> list[Reading]:
        times = os.times()
        found = [
            Reading(names.INFO, info),
            one(names.UPTIME, monotonic_s() - started_s),
            one(names.LOGS_DROPPED, lines_dropped()),
            one(names.CPU_TIME, times.user + times.system),
        ]
        with suppress(OSError):  # Linux alone has it
            resident = int(_STATM.read_text("ascii").split()[1])
            found.append(one(names.MEMORY, resident * _PAGE_BYTES))
        return found

    return readings
