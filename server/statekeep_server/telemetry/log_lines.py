"""A line of the log, for people or for programs. One event is one line, whatever is in it.

    2026-01-31T12:00:00.000Z INFO statekeep.app: Serving host=127.0.0.1 port=50551
    {"time": "2026-01-31T12:00:00.000Z", "level": "INFO", "logger": "statekeep.app", "message": …}

Pairs that a message was written with (`port=%d`) are members of their own in JSON.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from statekeep_server.telemetry.plain import plain
from statekeep_server.telemetry.save_events import LOGGER, SaveEvent, json_of, text_of
from statekeep_server.telemetry.tracebacks import told

MAX_CHARACTERS = 8_192
"""Of a message and of an error: people read a line, and programs have limits of their own."""

COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
"""The level's, as numbers of ANSI: faint, green, yellow, red, bold red."""

PLACE = re.compile(r"%%|(?:(\w+)=)?%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]")
"""A place for an argument in a message, with the name before it."""

Ids = Callable[[], tuple[str, str] | None]
"""The trace and the span that the caller is in, as hexadecimal; None outside of any."""


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How this process writes its lines.

    Attributes:
        worker: The number of the process, where it is one of several.
        ids: Asked in the caller's own context.
    """

    as_json: bool
    coloured: bool = False
    worker: int | None = None
    ids: Ids = lambda: None

    def line(self, record: logging.LogRecord) -> str:
        """Write a record of the log."""
        message, pairs = _said(record)
        members: dict[str, object] = pairs if self.as_json else {}
        ids = self.ids()
        if ids is not None:
            members["trace_id"], members["span_id"] = ids
        if record.exc_info and record.exc_info[1] is not None:
            members["error"] = _cut(told(record.exc_info[1]))
        at = _time(record.created)
        if self.as_json:
            head = self._json_head(at, record.levelname, record.name)
            return f"{{{head}, {json.dumps({'message': message, **members})[1:-1]}}}"
        more = "".join(f" {name}={plain(str(member))}" for name, member in members.items())
        return self._text(at, record.levelname, record.name, plain(message) + more)

    def event(self, event: SaveEvent) -> str:
        """Write what monitoring says of a save."""
        at = _time(event.at_us / 1_000_000)
        if self.as_json:
            return f"{{{self._json_head(at, 'INFO', LOGGER.name)}, {json_of(event)}}}"
        return self._text(at, "INFO", LOGGER.name, text_of(event))

    def _json_head(self, at: str, level: str, logger: str) -> str:
        head: dict[str, object] = {"time": at, "level": level, "logger": logger}
        if self.worker is not None:
            head["worker"] = self.worker
        return json.dumps(head)[1:-1]

    def _text(self, at: str, level: str, logger: str, text: str) -> str:
        who = "" if self.worker is None else f" worker {self.worker}"
        if not self.coloured:
            return f"{at} {level}{who} {logger}: {text}"
        word = f"\x1b[{COLOURS.get(level, '0')}m{level}\x1b[0m"
        return f"\x1b[2m{at}\x1b[0m {word}{who} \x1b[2m{logger}:\x1b[0m {text}"


def _time(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1_000:03d}Z"


def _said(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Make the message of a record, and the pairs in it."""
    try:
        return _cut(record.getMessage()), _pairs(record)
    except Exception:  # noqa: BLE001  # see the table of the house rules
        # The arguments do not fit, or cannot be shown: the place says which they were.
        return f"{_cut(str(record.msg))} ({record.filename}:{record.lineno})", {}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"


@lru_cache(maxsize=512)  # a template of ours each; somebody else's may be made up
def _names(template: str) -> tuple[str, ...]:
    """Name the arguments of a message, empty where it does not."""
    return tuple(found[1] or "" for found in PLACE.finditer(template) if found[0] != "%%")


def _pairs(record: logging.LogRecord) -> dict[str, object]:
    if not isinstance(record.args, tuple) or not record.args or not isinstance(record.msg, str):
        return {}
    names = _names(record.msg)
    if len(names) != len(record.args):
        return {}
    return {
        name: each if isinstance(each, int | float) or each is None else _cut(str(each))
        for name, each in zip(names, record.args, strict=True)
        if name
    }
