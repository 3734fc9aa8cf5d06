"""The checker accepts what can be explained and refuses what cannot."""

import math

from tests.support.linearizability import Kind, Operation, is_linearizable


def op(kind: Kind, value: str, version: int, called: float, answered: float) -> Operation:
    return Operation(kind, value, version, called, answered)


def test_a_sequence_is_accepted() -> None:
    assert is_linearizable(
        [
            op(Kind.LOADED, "", 0, 0, 1),
            op(Kind.PERSISTED, "A", 1, 2, 3),
            op(Kind.SKIPPED, "A", 1, 4, 5),
            op(Kind.PERSISTED, "B", 2, 6, 7),
            op(Kind.LOADED, "B", 2, 8, 9),
        ]
    )


def test_concurrent_saves_may_take_either_order() -> None:
    assert is_linearizable([op(Kind.PERSISTED, "A", 2, 0, 9), op(Kind.PERSISTED, "B", 1, 1, 8)])


def test_a_stale_skip_is_found() -> None:
    """Another server stored B; this one still answers that A stands."""
    assert not is_linearizable(
        [
            op(Kind.PERSISTED, "A", 1, 0, 1),
            op(Kind.PERSISTED, "B", 2, 2, 3),
            op(Kind.SKIPPED, "A", 1, 4, 5),
        ]
    )


def test_a_lost_save_is_found() -> None:
    assert not is_linearizable([op(Kind.PERSISTED, "A", 1, 0, 1), op(Kind.LOADED, "", 0, 2, 3)])


def test_a_save_that_happened_twice_is_found() -> None:
    assert not is_linearizable([op(Kind.PERSISTED, "A", 1, 0, 1), op(Kind.LOADED, "A", 2, 2, 3)])


def test_a_skip_of_another_value_is_found() -> None:
    assert not is_linearizable([op(Kind.PERSISTED, "A", 1, 0, 1), op(Kind.SKIPPED, "B", 1, 2, 3)])


def test_a_save_without_an_answer_may_have_happened_or_not() -> None:
    unknown = op(Kind.UNKNOWN, "B", 0, 2, math.inf)
    first = op(Kind.PERSISTED, "A", 1, 0, 1)
    assert is_linearizable([first, unknown, op(Kind.LOADED, "A", 1, 5, 6)])
    assert is_linearizable([first, unknown, op(Kind.LOADED, "B", 2, 5, 6)])
    assert is_linearizable(
        [first, unknown, op(Kind.LOADED, "A", 1, 5, 6), op(Kind.LOADED, "B", 2, 7, 8)]
    )
    assert not is_linearizable(
        [first, unknown, op(Kind.LOADED, "B", 2, 5, 6), op(Kind.LOADED, "A", 1, 7, 8)]
    )


def test_a_save_cannot_take_effect_before_its_call() -> None:
    assert not is_linearizable(
        [
            op(Kind.PERSISTED, "A", 1, 0, 1),
            op(Kind.LOADED, "B", 2, 2, 3),
            op(Kind.UNKNOWN, "B", 0, 4, math.inf),
        ]
    )
