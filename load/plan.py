"""How much a load run does, as `plan.toml` says it."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

PLAN = Path(__file__).with_name("plan.toml")
MIXED = ("save", "skip", "load")
SMALLEST_STATE_BYTES = 512
"""Below this a state holds no message of a conversation."""


class PlanError(ValueError):
    """A plan cannot be followed; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is done; the words are explained in `plan.toml`."""

    rounds: int
    calls: int
    max_duration_s: int
    concurrency: tuple[int, ...]
    connections: int
    state_bytes: int
    runs: int
    zipf_exponent: float
    mixed: Mapping[str, int]
    open_loop_share: float
    open_loop_duration_s: float

    def to_json(self) -> dict[str, Any]:
        """The plan by name."""
        return asdict(self)


def read_plan(path: Path = PLAN) -> Plan:
    """Read and check a plan. Raises PlanError."""
    try:
        with path.open("rb") as file:
            entries = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise PlanError(f"cannot read {path}: {error}") from error
    entries |= {f"open_loop_{name}": each for name, each in entries.pop("open_loop", {}).items()}
    wanted = {item.name for item in fields(Plan)}
    if entries.keys() != wanted:
        odd = ", ".join(sorted(entries.keys() ^ wanted))
        raise PlanError(f"{path}: missing or unknown: {odd}")
    for name, entry in entries.items():
        numbers = entry if isinstance(entry, list) else [entry]
        numbers = list(entry.values()) if isinstance(entry, dict) else numbers
        if not numbers or not all(_is_positive(number) for number in numbers):
            raise PlanError(f"{path}: {name} must be positive")
    if set(entries["mixed"]) != set(MIXED):
        raise PlanError(f"{path}: mixed needs a share for each of {', '.join(MIXED)}")
    plan = Plan(**entries | {"concurrency": tuple(entries["concurrency"])})
    if plan.state_bytes < SMALLEST_STATE_BYTES:
        raise PlanError(f"{path}: state_bytes must be at least {SMALLEST_STATE_BYTES}")
    return plan


def _is_positive(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and number > 0
