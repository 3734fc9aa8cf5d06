"""What is measured: each scenario opens what it needs, and then measures one round at a time."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.bench import Bench

MeasureRound = Callable[[int], Awaitable[None]]
"""Measures every contender of a scenario once; takes the round's number, from 0."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario.

    Attributes:
        name: For the choice of scenarios.
        open: Prepares it.
        postgresql: Whether it needs PostgreSQL.
        contenders: Named as missing if it cannot be prepared.
    """

    name: str
    open: Callable[[Bench], AbstractAsyncContextManager[MeasureRound]]
    postgresql: bool
    contenders: tuple[str, ...]
