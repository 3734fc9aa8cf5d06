"""How a command fails: one line on stderr, and an exit code that a script can act on.

| code | meaning |
|---|---|
| 0 | done |
| 1 | the command ran, and the answer is no: not found, refused, or a proof failed |
| 2 | the command line or the settings cannot be used |
| 3 | the server or the database cannot be reached, or cannot serve now |
| 130 | interrupted |
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from statekeep_server.cli.output import error_console, harmless
from statekeep_server.cli.settings import SettingsError

FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3

_PASSWORD = re.compile(r"(?P<before>\w://[^:/@\s]*):[^@\s]*@")


class CommandFailed(Exception):
    """A command cannot go on. The text is for the user."""

    def __init__(self, message: str, *, code: int = FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@contextmanager
def failing_politely() -> Iterator[None]:
    """Turn the errors that a command expects into one line and an exit code."""
    try:
        yield
    except CommandFailed as error:
        say(str(error))
        if error.hint:
            say(error.hint, label="hint")
        raise typer.Exit(error.code) from None
    except SettingsError as error:
        for problem in error.problems:
            say(problem)
        raise typer.Exit(WRONG_USAGE) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def say(text: str, *, label: str = "error") -> None:
    """Print one line to stderr, without any password that it may hold."""
    error_console().print(f"statekeep: {label}: {redact(harmless(' '.join(text.split())))}")


def redact(text: str) -> str:
    """Hide the passwords of URLs."""
    return _PASSWORD.sub(r"\g<before>:***@", text)
