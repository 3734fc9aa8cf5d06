"""Strategies: JSON values of every kind, and the many ways to write one down."""

import json
import random
import re
from typing import Any

from hypothesis import strategies as st

ODD_TEXTS = ["", ":", '":', '\\":', "\\", "a\\", '"', "/", "~", "*", "0", "\x00", "\x7f"]
ODD_TEXTS += [
    "12345678901234567890",
    "a 1234567890123456789",
    "\\u003a",
    "é",
    "e\u0301",
    "😀",
    "[{",
]
ODD_TEXTS += ["[{", "a,", "\u2028", "\u2028:"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(ODD_TEXTS)

EDGES = [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1]
EDGES += [2**64 - 1, 2**64, 2**64 + 1, 10**18, 10**19, 10**300, 10**400, 10**4299]
INTEGERS = st.integers() | st.sampled_from(EDGES) | st.integers(-(10**40), 10**40)
ODD_FLOATS = [
    0.0,
    -0.0,
    1.0,
    1e-5,
    9.999e-6,
    1e15,
    1e16,
    1e19,
    1e22,
    5e-324,
    1.7976931348623157e308,
]
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(ODD_FLOATS)
SCALARS: st.SearchStrategy[Any] = st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS

VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=6)
RANDOMS = st.integers(0, 2**32).map(random.Random)


def spell(value: Any, chance: random.Random) -> bytes:
    """Write a JSON value in one of its spellings: white space, order, escapes, number forms."""
    return _spell(value, chance).encode()


def _space(chance: random.Random) -> str:
    return chance.choice(["", "", "", " ", "\n", "\t\r "])


def _spell(value: Any, chance: random.Random) -> str:
    return _space(chance) + _bare(value, chance) + _space(chance)


def _bare(value: Any, chance: random.Random) -> str:
    if isinstance(value, dict):
        members = list(value.items())
        chance.shuffle(members)
        texts = [
            _space(chance) + _text(name, chance) + _space(chance) + ":" + _spell(below, chance)
            for name, below in members
        ]
        return "{" + (",".join(texts) or _space(chance)) + "}"
    if isinstance(value, list):
        return "[" + (",".join(_spell(e, chance) for e in value) or _space(chance)) + "]"
    if isinstance(value, str):
        return _text(value, chance)
    if isinstance(value, float):
        return _float(value, chance)
    return "-0" if value == 0 and value is not False and chance.random() < 0.2 else _plain(value)


def _plain(value: Any) -> str:
    return json.dumps(value)


def _text(text: str, chance: random.Random) -> str:
    letters = []
    for letter in text:
        units = letter.encode("utf-16-be").hex()
        escaped = "".join("\\u" + unit for unit in re.findall("....", units))
        if chance.random() < 0.2:
            letters.append(escaped if chance.random() < 0.5 else escaped.upper().replace("U", "u"))
        elif letter == "/" and chance.random() < 0.5:
            letters.append("\\/")
        else:
            letters.append(json.dumps(letter, ensure_ascii=False)[1:-1])
    return '"' + "".join(letters) + '"'


def _float(value: float, chance: random.Random) -> str:
    """Spell a double; every spelling reads as the same double."""
    forms = [repr(value), f"{value:.17e}", f"{value:.25E}", f"{value:.30f}"]
    good = [form for form in forms if float(form) == value]
    return chance.choice(good)
