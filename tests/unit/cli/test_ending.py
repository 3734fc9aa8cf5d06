"""The last resort: nothing ends by it what ends in time, and it ends what does not."""

import os
import subprocess
import sys
import threading

import pytest

from statekeep_server.cli.ending import bounded_end

HANGS = """
import threading
from statekeep_server.cli import ending
ending.CLOSING_S, ending.FORCED_S = {bounds}
from statekeep_server.telemetry.process_log import logging_to_stderr
with logging_to_stderr("INFO"), ending.bounded_end({drain_s}) as stopping:
    stopping(False)
    {again}
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("drain_s", "bounds", "again", "code"),
    [
        (0.0, "0.0, 3600.0", "", 1),
        (1e12, "3600.0, 0.0", "stopping(True)", 130),
    ],
)
def test_what_hangs_is_left_behind_and_said(
    drain_s: float, bounds: str, again: str, code: int
) -> None:
    program = HANGS.format(drain_s=drain_s, bounds=bounds, again=again)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode == code
    assert b"Ended without closing everything" in ended.stderr


def test_what_ends_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("ended"))
    before = threading.active_count()
    with bounded_end(3600) as stopping:
        stopping(False)
        stopping(True)
        timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        assert len(timers) == 2
    for timer in timers:
        timer.join()
    assert threading.active_count() == before
