"""The lines of monitoring, and texts of callers in them."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.telemetry.plain import plain
from statekeep_server.telemetry.save_events import (
    OPTIMIZED_SAVE,
    SKIPPED_SAVE,
    STANDARD_SAVE,
    SaveEvent,
    json_of,
    log_saves,
    text_of,
)

SAVED = SaveEvent(0, OPTIMIZED_SAVE, "run_123", 0.0153, 3, "", "")


def test_the_line_is_the_one_that_was_promised() -> None:
    assert text_of(SAVED) == (
        "Persistence metrics: optimized_save run_id=run_123 duration=15.30ms success=true "
        "fields_changed=3"
    )


def test_a_skip_a_fallback_and_a_failure_say_so() -> None:
    assert "skipped_save" in text_of(SAVED._replace(operation=SKIPPED_SAVE))
    fallback = SAVED._replace(operation=STANDARD_SAVE, fallback="CIRCUIT_OPEN")
    assert text_of(fallback).endswith("success=true fields_changed=3 fallback=CIRCUIT_OPEN")
    failed = SAVED._replace(fields_changed=None, error="COMMIT_UNKNOWN")
    assert text_of(failed).endswith("duration=15.30ms success=false error=COMMIT_UNKNOWN")


@pytest.mark.parametrize(
    ("event", "more"),
    [
        (SAVED, {"success": True, "fields_changed": 3}),
        (
            SAVED._replace(fallback="CIRCUIT_OPEN"),
            {"success": True, "fields_changed": 3, "fallback": "CIRCUIT_OPEN"},
        ),
        (
            SAVED._replace(fields_changed=None, error="OVERLOADED"),
            {"success": False, "error": "OVERLOADED"},
        ),
    ],
)
def test_json_has_the_same_facts(event: SaveEvent, more: dict[str, object]) -> None:
    assert json.loads(f"{{{json_of(event)}}}") == {
        "message": "Persistence metrics: optimized_save",
        "operation": "optimized_save",
        "run_id": "run_123",
        "duration_ms": 15.3,
        **more,
    }


@given(st.text())
def test_no_run_can_forge_a_line_or_a_pair(run_id: str) -> None:
    event = SAVED._replace(run_id=run_id)
    text = text_of(event)
    assert text.isprintable()
    assert text.isascii()
    before, after = text.split(" run_id=", maxsplit=1)
    assert before == "Persistence metrics: optimized_save"
    word = after.removesuffix(" duration=15.30ms success=true fields_changed=3")
    assert run_id in {word, json.loads(word) if word.startswith('"') else word}
    assert json.loads(f"{{{json_of(event)}}}")["run_id"] == run_id


@given(st.text())
def test_plain_text_stays_and_nothing_else_gets_through(text: str) -> None:
    shown = plain(text)
    assert plain(shown) == shown
    assert not any(character in shown for character in "\n\r\x1b\x85\u2028\u202e\ud800")
    assert text.isprintable() <= (shown == text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\x0ab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\ue0041"),
        ("Grüße 🙂", "Grüße 🙂"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_without_a_log_of_ours_the_lines_go_through_that_of_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "statekeep")
    log_saves([SAVED, SAVED._replace(run_id="other")])
    assert [record.message.split()[3] for record in caplog.records] == [
        "run_id=run_123",
        "run_id=other",
    ]
