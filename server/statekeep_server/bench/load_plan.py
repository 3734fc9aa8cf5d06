"""What a load test does, and what one of its client processes is told and tells."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

SHARES = {"save": 1, "skip": 2, "load": 1}
"""Of the calls of a mixed load, in every round of four."""


class Kind(StrEnum):
    """What a load consists of."""

    SAVE = "save"
    SKIP = "skip"
    LOAD = "load"
    MIXED = "mixed"

    @property
    def turns(self) -> tuple[str, ...]:
        """The calls in the order in which each caller makes them, again and again."""
        if self is Kind.MIXED:
            return tuple(name for name, share in SHARES.items() for _ in range(share))
        return (str(self),)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A load test.

    Attributes:
        processes: Client processes, each with a connection of its own.
        concurrency: Calls under way at once, in all processes together; with a rate the most.
        rate: Calls a second that are begun whether earlier ones are answered or not; None begins
            the next call when one is answered.
        runs: Runs that take turns, in all processes together.
        prefix: Begins the id of every run; nobody else's may begin so.
    """

    kind: Kind
    processes: int
    concurrency: int
    rate: float | None
    duration_s: float
    warm_up_s: float
    state_bytes: int
    runs: int
    prefix: str

    def parts(self) -> tuple["Part", ...]:
        """What each process does: shares that differ by one at most."""
        return tuple(
            Part(
                kind=self.kind,
                concurrency=max(1, _share(self.concurrency, self.processes, number)),
                rate=None if self.rate is None else self.rate / self.processes,
                duration_s=self.duration_s,
                warm_up_s=self.warm_up_s,
                state_bytes=self.state_bytes,
                runs=max(1, _share(self.runs, self.processes, number)),
                prefix=f"{self.prefix}-{number}",
            )
            for number in range(self.processes)
        )

    def run_ids(self) -> tuple[str, ...]:
        """Every run that the load may have made."""
        return tuple(
            run_id
            for part in self.parts()
            for number in range(part.runs)
            for run_id in (part.kept(number), part.moving(number))
        )


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of one process; fields as those of `LoadPlan`."""

    kind: Kind
    concurrency: int
    rate: float | None
    duration_s: float
    warm_up_s: float
    state_bytes: int
    runs: int
    prefix: str

    def kept(self, number: int) -> str:
        """A run that is skipped and loaded."""
        return f"{self.prefix}-kept-{number}"

    def moving(self, number: int) -> str:
        """A run whose every save is a new state."""
        return f"{self.prefix}-{number}"

    def to_json(self) -> dict[str, Any]:
        """The part for the process."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Part":
        """What `to_json` gave."""
        return cls(**{**fields, "kind": Kind(fields["kind"])})
