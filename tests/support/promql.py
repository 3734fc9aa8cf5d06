"""What a query to Prometheus names: metrics and labels; and a form of it that is never empty."""

import re
from dataclasses import dataclass

GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
MATCHERS = re.compile(r"\{([^}]*)\}")
WORDS = {"and", "or", "unless", "offset", "bool"}


@dataclass(frozen=True)
class Named:
    """The names in a query."""

    metrics: frozenset[str]
    labels: frozenset[str]


def named(query: str) -> Named:
    """List what a query names. Strings, durations, functions and numbers are no names."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    grouped = (group.split(",") for group in GROUPING.findall(bare))
    labels = {label.strip() for group in grouped for label in group} - {""}  # `on ()` names none
    bare = GROUPING.sub(" ", bare)
    for matchers in MATCHERS.findall(bare):
        labels |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", MATCHERS.sub(" ", bare))
    identifiers = re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", bare)
    return Named(frozenset(identifiers) - WORDS, frozenset(labels))


def unfiltered(query: str) -> str:
    """Let comparisons answer with 0 or 1 instead of leaving out what is not so."""
    return re.sub(r"(?<=\s)(>|<|==)(?=\s)", r"\1 bool", query)
