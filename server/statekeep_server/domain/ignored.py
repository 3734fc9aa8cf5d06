"""Ignored fields: the parts of a JSON state that no comparison looks at.

A bare name is a member at the top level of the state, and only there. A name that starts with
`/` is a JSON Pointer (RFC 6901): its steps go down through objects by member name and through
arrays by index, `*` steps into every element of an array, `~1` stands for `/` and `~0` for `~`.
In an object `*` is an ordinary name. What a pointer reaches is left out of the comparison, an
element of an array too; what it does not reach changes nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from statekeep_server.domain.errors import InvalidField
from statekeep_server.domain.framing import digest

DEFAULT_IGNORED_FIELDS: tuple[str, ...] = (
    "access_count",
    "heartbeat_at",
    "heartbeat_count",
    "last_accessed",
    "last_heartbeat",
    "last_saved_at",
    "last_updated",
    "save_count",
    "timestamp",
    "updated_at",
)
"""Times and counters of the saving itself. A counter of the work (`step_count`) has a meaning."""

MAX_NAME_CHARACTERS = 256
"""Longer than any path that a person would write down."""

MERGED_LISTS = 256
"""Merged lists that are kept ready: clients send the same few again and again."""

BAD_ESCAPE = re.compile(r"~(?![01])")

Tree = dict[str, "Tree | None"]
"""Steps of pointers and what follows them; None where a pointer ends."""


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """A compiled list of ignored fields.

    Attributes:
        names: Sorted, each once.
        digest: 32 bytes, equal for equal lists.
        top: The members of a top-level object that are left out.
        tree: The pointers by their first step; those that only name a member are in `top` as well.
    """

    names: tuple[str, ...]
    digest: bytes
    top: frozenset[str] = field(compare=False, repr=False)
    tree: Mapping[str, Tree | None] = field(compare=False, repr=False)


def compile_ignored(names: Iterable[str]) -> IgnoredFields:
    """Compile a list of ignored fields.

    Raises InvalidField ("ignored_fields") for a name that is empty, too long, not Unicode text or
    a pointer with an escape that is none.
    """
    unique = tuple(sorted(set(names)))
    top: set[str] = set()
    tree: Tree = {}
    for name in unique:
        _check(name)
        if not name.startswith("/"):
            top.add(name)
            continue
        steps = [step.replace("~1", "/").replace("~0", "~") for step in name[1:].split("/")]
        if len(steps) == 1:
            top.add(steps[0])
        _plant(tree, steps)
    encoded = [name.encode() for name in unique]
    return IgnoredFields(unique, digest("statekeep ignored fields", encoded), frozenset(top), tree)


@lru_cache(maxsize=MERGED_LISTS)
def merge_ignored(ignored: IgnoredFields, more: tuple[str, ...]) -> IgnoredFields:
    """Add names to a compiled list. Raises like `compile_ignored`."""
    return compile_ignored((*ignored.names, *more))


def prune(value: object, tree: Mapping[str, Tree | None]) -> object:
    """Return a JSON value without what the pointers reach; the value itself is not changed."""
    if isinstance(value, dict):
        return prune_object(value, tree)
    if not isinstance(value, list) or not tree:
        return value
    every = tree.get("*", {})
    if every is None:
        return []
    return [
        prune(element, below) if below else element for element, below in _below(value, tree, every)
    ]


def prune_object(value: Mapping[str, object], tree: Mapping[str, Tree | None]) -> dict[str, object]:
    """Return a JSON object without what the pointers reach."""
    kept = dict(value)
    for step in tree.keys() & kept.keys():
        below = tree[step]
        if below is None:
            del kept[step]
        else:
            kept[step] = prune(kept[step], below)
    return kept


def _below(
    elements: list[object], tree: Mapping[str, Tree | None], every: Tree
) -> Iterable[tuple[object, Tree]]:
    """Pair the elements that stay with the pointers that go on below them."""
    for index, element in enumerate(elements):
        below = tree.get(str(index), every) if len(tree) > ("*" in tree) else every
        if below is not None:
            yield element, _join(below, every)


def _join(one: Tree, other: Tree) -> Tree:
    """Unite two trees; where a pointer of either ends, the whole branch is left out."""
    if one is other or not other:
        return one
    joined = dict(one)
    for step, below in other.items():
        mine = joined.get(step, below)
        joined[step] = None if mine is None or below is None else _join(mine, below)
    return joined


def _plant(tree: Tree, steps: list[str]) -> None:
    for step in steps[:-1]:
        below = tree.setdefault(step, {})
        if below is None:  # a shorter pointer already takes the whole branch
            return
        tree = below
    tree[steps[-1]] = None


def _check(name: str) -> None:
    if not name:
        raise InvalidField("ignored_fields", "a name is empty")
    if len(name) > MAX_NAME_CHARACTERS:
        message = f"a name is longer than {MAX_NAME_CHARACTERS} characters"
        raise InvalidField("ignored_fields", message, limit=MAX_NAME_CHARACTERS)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidField("ignored_fields", "a name is not Unicode text") from None
    if name.startswith("/") and BAD_ESCAPE.search(name):
        raise InvalidField("ignored_fields", "a pointer has a ~ that is neither ~0 nor ~1")
