"""Errors in a log: what they are and where they happened, and no text but our own.

The text of somebody else's error may hold anything, a state or a connection string too, and so may
the source lines of a traceback.
"""

import traceback
from collections.abc import Iterator

OURS = "statekeep_server."


def told(error: BaseException) -> str:
    """Write an error and those that caused it, newest first, in one line."""
    return " <- ".join(f"{_what(link)} at {_where(link)}" for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to the errors that caused it, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _what(error: BaseException) -> str:
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name.startswith(OURS):
        return f"{name}: {error}"
    # The codes of the database and of the system say what happened, and nothing else.
    for code in ("sqlstate", "errno"):
        found = getattr(error, code, None)
        if isinstance(found, str | int):
            return f"{name} {code}={found}"
    return name


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
    return ", ".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)


MAX_FRAMES = 30
"""Of each error, the innermost: a recursion without an end must not make a line without one."""
