"""Texts of callers in lines of a log: none can end its line, or look like what it is not."""

import json
import re

UNPRINTABLE = re.compile(
    # Controls, invisible and bidirectional marks, separators of lines, lone surrogates, and
    # characters that no standard gives a meaning.
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff0-\uffff\U000e0000-\U000e0fff]"
)

BARE = re.compile(r"[\w.:/@+-]+", re.ASCII)
"""Values that need no quotes."""


def plain(text: str) -> str:
    """Write what a terminal or another program would obey, or hide, as escapes."""
    if text.isascii() and text.isprintable():  # quick, and nearly always true
        return text
    return UNPRINTABLE.sub(_escape, text)


def value(text: str) -> str:
    """Write the value of a `name=value` pair: in quotes unless it is a word."""
    return text if BARE.fullmatch(text) else json.dumps(text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
