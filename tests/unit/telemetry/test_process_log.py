"""The log of a process: whatever becomes of standard error, nobody who logs waits or fails."""

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statekeep_server.telemetry.log_lines import LineFormat
from statekeep_server.telemetry.process_log import (
    MAX_LINES,
    WRITE_BYTES,
    LineStream,
    LogFormat,
    ProcessLog,
    logging_to_stderr,
    process_log,
    save_lines,
)
from statekeep_server.telemetry.save_events import OPTIMIZED_SAVE, SaveEvent, log_saves

LOGGER = logging.getLogger("statekeep.test")
EVENT = SaveEvent(0, OPTIMIZED_SAVE, "run_123", 0.0153, 3, "", "")


def opened(file: int | None) -> ProcessLog:
    log = ProcessLog(LineStream(file), LineFormat(as_json=False))
    log.start()
    return log


def say(log: ProcessLog, message: str, *args: object, name: str = "statekeep.test") -> None:
    log.handle(logging.LogRecord(name, logging.INFO, "test.py", 1, message, args, None))


def wait_for(condition: object) -> None:
    assert callable(condition)
    while not condition():
        threading.Event().wait(0.001)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(end)


@contextmanager
def standard_error(path: Path) -> Iterator[None]:
    before = sys.stderr
    with path.open("w") as file:
        sys.stderr = file
        try:
            yield
        finally:
            sys.stderr = before


def test_a_pipe_that_nobody_reads_costs_lines_and_they_are_told_of(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = opened(writer)
    lines = 0
    while log.statistics().depth < MAX_LINES:  # the pipe is full, and then the queue
        say(log, "line %d " + "x" * 100, lines)
        lines += 1
    dropped = log.statistics().dropped
    say(log, "one too many")
    assert log.statistics().dropped == dropped + 1

    read = b""

    def read_all() -> None:
        nonlocal read
        while chunk := os.read(reader, 65_536):
            read += chunk

    thread = threading.Thread(target=read_all)
    thread.start()
    wait_for(lambda: not log.statistics().depth)
    say(log, "there is room again")
    log.stop(timeout_s=60)
    os.close(writer)
    thread.join()
    found = read.decode().splitlines()
    assert [line for line in found if "Lines were lost: lines=" in line]
    assert "there is room again" in found[-1]
    assert log.statistics().written == len([line for line in found if "were lost" not in line])


def test_a_hanging_log_does_not_hold_up_the_end(pipe: tuple[int, int]) -> None:
    log = opened(pipe[1])
    for _ in range(MAX_LINES):
        say(log, "x" * 200)
    log.stop(timeout_s=0.01)
    assert log.statistics().depth


@pytest.mark.parametrize("file", [None, "closed pipe", "full disk"])
def test_what_cannot_be_written_is_counted(pipe: tuple[int, int], file: str | None) -> None:
    descriptor: int | None = None
    if file == "closed pipe":
        os.close(pipe[0])
        descriptor = pipe[1]
    elif file == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    log = opened(descriptor)
    say(log, "x")
    wait_for(lambda: log.statistics().dropped)
    with pytest.raises(OSError):
        log.write_saves([EVENT])
    log.stop(timeout_s=60)
    assert log.statistics().written == 0
    if file == "full disk" and descriptor is not None:
        os.close(descriptor)


def test_a_pipe_gets_whole_lines_in_pieces_that_it_takes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[bytes] = []

    def write(file: int, data: bytes) -> int:
        taken = data[: WRITE_BYTES // 2] if len(data) > WRITE_BYTES else data
        pieces.append(taken)
        return len(taken)

    monkeypatch.setattr(os, "write", write)
    lines = [f"{number} " + "x" * 300 for number in range(50)] + ["y" * 3 * WRITE_BYTES, "\ud800"]
    LineStream(1).write(lines)
    assert b"".join(pieces).decode() == "".join(f"{line}\n" for line in [*lines[:-1], "\\ud800"])
    assert max(map(len, pieces)) <= WRITE_BYTES
    short = pieces[:4]
    assert all(piece.endswith(b"\n") for piece in short)


def test_others_are_heard_from_info_on(pipe: tuple[int, int]) -> None:
    """aiosqlite logs every statement at DEBUG, with the states in it."""
    log = opened(pipe[1])
    for name in ("aiosqlite", "statekeep.x", "statekeeper"):
        record = logging.LogRecord(name, logging.DEBUG, "x.py", 1, f"from {name}", (), None)
        log.handle(record)
    say(log, "careful", name="asyncio")
    log.stop(timeout_s=60)
    os.close(pipe[1])
    text = os.read(pipe[0], 65_536).decode()
    assert [line.split(": ")[1] for line in text.splitlines()] == ["from statekeep.x", "careful"]


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_standard_error_gets_the_form_that_was_asked_for(
    tmp_path: Path, form: LogFormat, is_json: bool
) -> None:
    assert process_log() is None
    root = logging.getLogger()
    level = root.level
    with standard_error(tmp_path / "log"), logging_to_stderr("INFO", form, worker=2) as log:
        assert process_log() is log
        LOGGER.info("hello=%s", "you")
        LOGGER.debug("not this")
        logging.getLogger("alembic.runtime.plugins").info("nor this")
        save_lines()([EVENT])
    assert process_log() is None
    assert root.level == level
    first, second = sorted((tmp_path / "log").read_text().splitlines(), key=len)
    if is_json:
        found = json.loads(first)
        assert (found["worker"], found["hello"]) == (2, "you")
        assert json.loads(second)["operation"] == "optimized_save"
    else:
        assert "INFO worker 2 statekeep.test: hello=you" in first
        assert "INFO worker 2 statekeep.monitoring: Persistence metrics" in second


def test_without_standard_error_there_is_nobody_to_write_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with logging_to_stderr("INFO") as log:
        LOGGER.info("x")
    assert log.statistics().dropped == 1


class Terminal:
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.file

    def __init__(self, file: int) -> None:
        self.file = file


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_has_text_and_colours_where_they_are_wanted(
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal(pipe[1]))
    with logging_to_stderr("INFO"):
        LOGGER.info("hello")
    text = os.read(pipe[0], 65_536).decode()
    assert ("\x1b[" in text) == coloured
    assert "hello\n" in text


def test_elsewhere_monitoring_goes_through_whatever_log_there_is() -> None:
    assert save_lines() is log_saves
