"""A second canonical form, written from docs/canonical-form.md alone: slow, plain and recursive.

It shares no line and no codec with the product, so where the two agree, the document is right.
"""

import hashlib
import re
import struct
from decimal import Decimal
from typing import Any

Step = tuple[str, str]
"""A step down a state: `("member", name)` or `("element", index)`."""


def write(value: Any) -> str:
    """Write a JSON value in the canonical form."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return write_float(value)
    if isinstance(value, str):
        return write_text(value)
    if isinstance(value, list):
        return "[" + ",".join(write(element) for element in value) + "]"
    members = sorted(value.items(), key=lambda member: [ord(letter) for letter in member[0]])
    return "{" + ",".join(f"{write_text(name)}:{write(below)}" for name, below in members) + "}"


def write_text(text: str) -> str:
    short = {
        "\b": "\\b",
        "\t": "\\t",
        "\n": "\\n",
        "\f": "\\f",
        "\r": "\\r",
        '"': '\\"',
        "\\": "\\\\",
    }
    letters = [
        short.get(letter) or (f"\\u{ord(letter):04x}" if letter < " " else letter)
        for letter in text
    ]
    return '"' + "".join(letters) + '"'


def write_float(value: float) -> str:
    shortest = Decimal(repr(value))
    if value == 0 or 1e-5 <= abs(value) < 1e16:
        plain = format(shortest, "f")
        return plain if "." in plain else plain + ".0"
    sign, digits, exponent = shortest.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    exponent += len(text) - 1
    fraction = text[1:].rstrip("0")
    return (
        ("-" if sign else "")
        + text[0]
        + (f".{fraction}" if fraction else "")
        + (f"e+{exponent}" if exponent > 0 else f"e{exponent}")
    )


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: kinds apart, integers exact, absent and null different."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    return bool(one == other)


def strip(value: Any, names: tuple[str, ...]) -> Any:
    """Leave out what a list of ignored fields names."""
    return _strip(value, [_pattern(name) for name in names], ())


def digest(tag: str, *parts: bytes) -> bytes:
    framed = frame(tag.encode(), *parts)
    return hashlib.sha256(framed).digest()


def frame(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">Q", len(part)) + part for part in parts)


def comparison_hash(
    form: bytes,
    *,
    ignored: tuple[str, ...] = (),
    content_type: str = "application/json",
    thread_id: str = "",
    user_id: str = "",
    agent_phase: str = "",
    execution_context: dict[str, str] | None = None,
) -> bytes:
    """Hash what is compared; `form` is the canonical state, `ignored` the whole list."""
    context = sorted((execution_context or {}).items())
    return digest(
        "statekeep comparison",
        b"1",
        digest("statekeep ignored fields", *(name.encode() for name in sorted(set(ignored)))),
        content_type.encode(),
        thread_id.encode(),
        user_id.encode(),
        agent_phase.encode(),
        frame(*(text.encode() for pair in context for text in pair)),
        form,
    )


def _pattern(name: str) -> list[str] | str:
    if not name.startswith("/"):
        return name
    return [
        re.sub("~[01]", lambda escape: {"~0": "~", "~1": "/"}[escape[0]], step)
        for step in name[1:].split("/")
    ]


def _matches(pattern: list[str] | str, path: tuple[Step, ...]) -> bool:
    if isinstance(pattern, str):
        return path == (("member", pattern),)
    return len(pattern) == len(path) and all(
        step == name or (kind == "element" and step == "*")
        for step, (kind, name) in zip(pattern, path, strict=True)
    )


def _strip(value: Any, patterns: list[list[str] | str], path: tuple[Step, ...]) -> Any:
    if any(_matches(pattern, path) for pattern in patterns):
        return ...
    if isinstance(value, dict):
        members = {
            name: _strip(below, patterns, (*path, ("member", name)))
            for name, below in value.items()
        }
        return {name: below for name, below in members.items() if below is not ...}
    if isinstance(value, list):
        elements = [
            _strip(below, patterns, (*path, ("element", str(index))))
            for index, below in enumerate(value)
        ]
        return [below for below in elements if below is not ...]
    return value
