"""What commands print: readable, whole, and without secrets or control characters."""

import json
from datetime import UTC, datetime

import pytest
import typer

from statekeep_server.cli.errors import CommandFailed, failing_politely, redact, say
from statekeep_server.cli.output import cell, print_facts, print_json, print_table
from statekeep_server.cli.settings import SettingsError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ((), "-"),
        (True, "yes"),
        (False, "no"),
        (12_345, "12,345"),
        (1.234, "1.23"),
        (b"\x01\xff", "01ff"),
        (("a", "b"), "a, b"),
        (datetime(2024, 5, 1, 8, 0, 1, tzinfo=UTC), "2024-05-01 08:00:01Z"),
    ],
)
def test_a_cell_is_what_people_read(value: object, text: str) -> None:
    assert cell(value) == text


def test_a_table_that_goes_to_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 120
    print_table(("run", "n"), [(long, 7)], title="Runs", right=("n",))
    out = capsys.readouterr().out
    assert long in out
    assert "Runs" in out


def test_what_a_server_says_is_no_markup_and_no_escape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("[bold]h[/bold]",), [("[red]a[/red]\x1b[31m\x07",)])
    print_facts([("[link=x]n", "[/]v\x1b]0;title\x07")])
    out = capsys.readouterr().out
    assert "[red]a[/red]" in out
    assert "[bold]h[/bold]" in out
    assert "[link=x]n" in out
    assert "a[/red]\\x1b[31m\\x07" in out
    assert not {"\x1b", "\x07"} & set(out)


def test_no_json_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    tricky = "\x1b[2J \x9b2J \x7f \x00"
    print_json({tricky: tricky})
    out = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\x7f", "\x00"} & set(out)
    assert json.loads(out) == {tricky: tricky}


def test_json_holds_times_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"at": datetime(2024, 5, 1, tzinfo=UTC), "hash": b"\x0a", "name": "é"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"at": "2024-05-01T00:00:00Z", "hash": "0a", "name": "é"}
    with pytest.raises(TypeError, match="set has no JSON form"):
        print_json({"a": {1}})


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://me:hunter2@db/x failed", "postgresql://me:***@db/x failed"),
        (
            "a postgresql+asyncpg://:p@h b sqlite:///f",
            "a postgresql+asyncpg://:***@h b sqlite:///f",
        ),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("at 127.0.0.1:50551, mail a@b", "at 127.0.0.1:50551, mail a@b"),
    ],
)
def test_passwords_of_urls_are_hidden(text: str, safe: str) -> None:
    assert redact(text) == safe


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("first\n  second [red] postgresql://u:hunter2@h/d " + "long " * 60 + "\x1b[2J")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert err.startswith("statekeep: error: first second [red] postgresql://u:***@h/d long")


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (CommandFailed("no"), 1, ["statekeep: error: no"]),
        (
            CommandFailed("no", code=3, hint="try"),
            3,
            ["statekeep: error: no", "statekeep: hint: try"],
        ),
        (SettingsError(("a: b", "c: d")), 2, ["statekeep: error: a: b", "statekeep: error: c: d"]),
        (KeyboardInterrupt(), 130, []),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    error: BaseException, code: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, failing_politely():
        raise error
    assert caught.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines
    assert not captured.out


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), failing_politely():
        _ = 1 / 0
