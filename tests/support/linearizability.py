"""A small checker: is there an order of a run's operations that explains every answer?

Wing and Gong's search with memory. Each operation took effect at one moment between its call and
its answer; an operation without an answer took effect once at any moment after its call, or never.
The model is a register with a version: a persisted save raises it by one, a skipped save names the
version that stands and whose value equals its own, a load returns both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What an operation was, and what it was answered."""

    PERSISTED = auto()
    SKIPPED = auto()
    LOADED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one run.

    Attributes:
        called_s, answered_s: The interval in which it took effect; infinity without an answer.
        version: As answered; 0 for a load that found nothing, ignored for UNKNOWN.
    """

    kind: Kind
    value: str
    version: int
    called_s: float
    answered_s: float


State = tuple[int, str]
EMPTY: State = (0, "")


def is_linearizable(operations: Sequence[Operation]) -> bool:
    """Whether the history of one run has an explanation."""
    ordered = sorted(operations, key=lambda operation: operation.called_s)
    required = frozenset(
        index for index, operation in enumerate(ordered) if operation.kind is not Kind.UNKNOWN
    )
    seen: set[tuple[frozenset[int], State]] = set()
    stack: list[tuple[frozenset[int], State]] = [(frozenset(), EMPTY)]
    while stack:
        done, state = stack.pop()
        if required <= done:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        open_ends = [ordered[index].answered_s for index in required - done]
        first_answer_s = min(open_ends)
        for index, operation in enumerate(ordered):
            if index in done or operation.called_s > first_answer_s:
                continue
            after = _apply(operation, state)
            if after is not None:
                stack.append((done | {index}, after))
    return False


def _apply(operation: Operation, state: State) -> State | None:
    """The state after an operation; None where its answer would have been a lie."""
    version, value = state
    match operation.kind:
        case Kind.PERSISTED:
            return (
                (operation.version, operation.value) if operation.version == version + 1 else None
            )
        case Kind.SKIPPED | Kind.LOADED:
            return state if (operation.version, operation.value) == (version, value) else None
        case Kind.UNKNOWN:
            return version + 1, operation.value
