"""Lines of the log: one per event, for people and for programs, with nothing of others in them."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.telemetry.log_lines import MAX_CHARACTERS, LineFormat
from statekeep_server.telemetry.save_events import OPTIMIZED_SAVE, SaveEvent
from statekeep_server.telemetry.tracebacks import MAX_FRAMES, told

TEXT = LineFormat(as_json=False)
JSON = LineFormat(as_json=True)
SECRET = "hunter2"
EVENT = SaveEvent(1_750_000_000_123_000, OPTIMIZED_SAVE, "run_123", 0.0153, 3, "", "")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def record(
    message: str, *args: object, error: BaseException | None = None, level: int = logging.INFO
) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("statekeep.app", level, "app.py", 7, message, args, info)
    made.created = 1_750_000_000.123
    return made


def parsed(made: logging.LogRecord, lines: LineFormat = JSON) -> dict[str, Any]:
    found = json.loads(lines.line(made))
    assert isinstance(found, dict)
    return found


def test_a_line_for_people() -> None:
    made = record("Serving host=%s port=%d", "127.0.0.1", 50_551)
    rest = "statekeep.app: Serving host=127.0.0.1 port=50551"
    assert TEXT.line(made) == f"2025-06-15T15:06:40.123Z INFO {rest}"
    worker = LineFormat(as_json=False, worker=3)
    assert worker.line(made) == f"2025-06-15T15:06:40.123Z INFO worker 3 {rest}"


def test_a_line_for_programs_has_the_pairs_of_its_message() -> None:
    made = record("Serving host=%s port=%d share=%.2f of %s 100%%", "::1", 50_551, 0.5, "all")
    assert parsed(made, LineFormat(as_json=True, worker=0)) == {
        "time": "2025-06-15T15:06:40.123Z",
        "level": "INFO",
        "logger": "statekeep.app",
        "worker": 0,
        "message": "Serving host=::1 port=50551 share=0.50 of all 100%",
        "host": "::1",
        "port": 50_551,
        "share": 0.5,
    }


def test_colours_are_for_terminals() -> None:
    coloured = LineFormat(as_json=False, coloured=True)
    line = coloured.line(record("Serving", level=logging.ERROR))
    assert "\x1b[31mERROR\x1b[0m" in line
    assert "\x1b[32mINFO\x1b[0m" in coloured.event(EVENT)
    assert "\x1b" not in TEXT.line(record("Serving", level=logging.ERROR))


def test_the_trace_of_the_caller_is_named() -> None:
    ids = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert TEXT.line(record("x")).endswith(": x")
    traced = LineFormat(as_json=False, ids=lambda: ids).line(record("x"))
    assert traced.endswith(f": x trace_id={ids[0]} span_id={ids[1]}")
    found = parsed(record("x"), LineFormat(as_json=True, ids=lambda: ids))
    assert (found["trace_id"], found["span_id"]) == ids


def test_what_monitoring_says_has_the_form_of_the_log() -> None:
    assert TEXT.event(EVENT) == (
        "2025-06-15T15:06:40.123Z INFO statekeep.monitoring: Persistence metrics: optimized_save "
        "run_id=run_123 duration=15.30ms success=true fields_changed=3"
    )
    found = json.loads(LineFormat(as_json=True, worker=1).event(EVENT))
    assert (found["time"], found["worker"], found["run_id"]) == (
        "2025-06-15T15:06:40.123Z",
        1,
        "run_123",
    )


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_an_error_is_told_in_one_line_without_the_words_of_others() -> None:
    driver = raised(RuntimeError(f"password={SECRET}"))
    error = raised(StorageUnavailable("UNREACHABLE"), driver)
    for lines in (TEXT, JSON):
        line = lines.line(record("Optimized persistence failed: reason=%s", "X", error=error))
        assert SECRET not in line
        assert "\n" not in line
        assert "statekeep_server.domain.errors.StorageUnavailable: " in line
        assert " <- builtins.RuntimeError at " in line
        assert f"{__file__}:" in line
        assert "in raised" in line


def test_the_codes_of_the_system_and_of_the_database_are_told() -> None:
    class DiskFullError(Exception):
        sqlstate = "53100"

    assert told(raised(ConnectionRefusedError(111, SECRET))).startswith(
        "builtins.ConnectionRefusedError errno=111 at "
    )
    assert "DiskFullError sqlstate=53100 at " in told(raised(DiskFullError(SECRET)))


def test_errors_without_an_end_are_cut() -> None:
    one, other = RuntimeError("a"), RuntimeError("b")
    one.__cause__, other.__cause__ = other, one
    assert told(one).count("RuntimeError") == 2

    def sink(depth: int) -> None:
        if not depth:
            raise KeyError(SECRET)
        sink(depth - 1)

    with pytest.raises(KeyError) as caught:
        sink(200)
    assert told(caught.value).count("in sink") == MAX_FRAMES


def test_a_long_message_is_cut() -> None:
    line = TEXT.line(record("%s", "x" * 100_000))
    assert len(line) < MAX_CHARACTERS + 100
    assert len(JSON.line(record("name=%s", "x" * 100_000))) < 2 * MAX_CHARACTERS + 300


@pytest.mark.parametrize("args", [(SECRET, "x"), (1, 2, SECRET), (1, Unprintable())])
def test_a_mistake_in_the_call_neither_raises_nor_shows_its_arguments(
    args: tuple[object, ...],
) -> None:
    made = record("saved %d run=%s", *args)
    for lines in (TEXT, JSON):
        line = lines.line(made)
        assert "saved %d" in line
        assert "(app.py:7)" in line
        assert SECRET not in line


def test_arguments_by_name_and_other_messages_have_no_pairs() -> None:
    made = record("a=%(a)s")
    made.args = {"a": 1}
    assert parsed(made)["message"] == "a=1"
    odd = record("x=%s")
    odd.msg, odd.args = ValueError("a=%s"), ("b",)
    assert "message" in parsed(odd)
    star = record("x=%*d y=%s", 3, 4, 5)
    assert set(parsed(star)) == {"time", "level", "logger", "message"}


@given(st.text(), st.text())
def test_no_text_can_forge_a_line(name: str, value: str) -> None:
    made = record("Flag changed: by=%s to=%r", name, value)
    shown = TEXT.line(made)
    assert len(shown.splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    line = JSON.line(made)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert parsed(made)["by"] == name
