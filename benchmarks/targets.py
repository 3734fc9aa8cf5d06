"""The targets: what is compared with what, at which concurrency, and how much is enough.

Each target is a ratio of numbers that were measured in the same round; the median over the rounds
is what counts, the smallest and largest ratio are its spread. A ratio of which one side was never
measured is not met, and says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.measurements import Key, Rounds, median, rounded

AtLeast = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of the table.

    Attributes:
        name: What is measured against what.
        concurrency: How many calls were under way, in words.
        bound: Whether `limit` is the least or the most.
        unit: `×` for a ratio, `%` for a share.
        numerator: The measured number.
        denominators: What it is divided by: their sum, or the largest of them if `best` is set.
            Nothing: the number stands for itself.
    """

    name: str
    concurrency: str
    bound: AtLeast
    limit: float
    numerator: Key
    denominators: tuple[Key, ...] = ()
    best: bool = False
    unit: str = "×"

    @property
    def wanted(self) -> str:
        """The target in words."""
        limit = 100 * self.limit if self.unit == "%" else self.limit
        return f"{self.bound} {limit:g} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A target beside what was measured.

    Attributes:
        measured: The median of the ratios; None if there are none.
        spread: The smallest and the largest ratio.
        rounds: How many ratios there are.
        crowded: The rounds of them in which other programs took much of the machine.
        why: Why nothing was measured.
    """

    target: Target
    measured: float | None
    spread: tuple[float, float] | None
    met: bool
    rounds: int = 0
    crowded: tuple[int, ...] = ()
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """The outcome for programs."""
        return {
            "name": self.target.name,
            "concurrency": self.target.concurrency,
            "target": self.target.wanted,
            "measured": None if self.measured is None else rounded(self.measured),
            "spread": None if self.spread is None else [rounded(each) for each in self.spread],
            "met": self.met,
            "rounds": self.rounds,
            "crowded_rounds": [number + 1 for number in self.crowded],
            **({"why": self.why} if self.why else {}),
        }


def evaluate(target: Target, rounds: Rounds, missing: Mapping[str, str]) -> Outcome:
    """Compare a target with what was measured.

    Args:
        target: The target.
        rounds: The measurements.
        missing: Why a contender could not be measured, by its name.
    """
    by_round = _ratios(target, rounds)
    ratios = list(by_round.values())
    keys = (target.numerator, *target.denominators)
    if not ratios:
        contenders = [key.contender for key in keys]
        why = next((missing[name] for name in contenders if name in missing), "not measured")
        return Outcome(target=target, measured=None, spread=None, met=False, why=why)
    measured = median(ratios)
    met = measured >= target.limit if target.bound == "at least" else measured <= target.limit
    spread = (min(ratios), max(ratios))
    crowded = frozenset().union(*(rounds.crowded(key) for key in keys)) & by_round.keys()
    return Outcome(
        target=target,
        measured=measured,
        spread=spread,
        met=met,
        rounds=len(ratios),
        crowded=tuple(sorted(crowded)),
    )


def _ratios(target: Target, rounds: Rounds) -> dict[int, float]:
    """The ratio of each round in which both sides were measured.

    What was measured once, like a size, is compared in that round.
    """
    above = rounds.by_round(target.numerator)
    if not target.denominators:
        return above
    below = [rounds.by_round(key) for key in target.denominators]
    if target.best:
        below = [each for each in below if each]
    ratios = {}
    for number, value in above.items():
        parts = [each[number] for each in below if number in each]
        if parts and len(parts) == len(below):
            whole = max(parts) if target.best else sum(parts)
            if whole > 0:
                ratios[number] = value / whole
    return ratios


def _throughput(concurrency: int) -> tuple[Target, ...]:
    def against(name: str, contender: str, limit: float, *, above: str = "save") -> Target:
        return Target(
            name=name,
            concurrency=str(concurrency),
            bound="at least",
            limit=limit,
            numerator=Key(above, concurrency=concurrency),
            denominators=(Key(contender, concurrency=concurrency),),
        )

    return (
        against("durable saves/s : ORM session per save", "orm", 9.0),
        against("durable saves/s : our standard path", "standard", 2.0),
        against("standard path's saves/s : ORM session per save", "orm", 3.0, above="standard"),
        against("durable saves/s : echo", "echo", 0.45),
        against(
            "durable saves/s, compression and telemetry off : echo",
            "echo",
            0.55,
            above="save_plain",
        ),
        against("skipped saves/s : echo", "echo", 0.6, above="skip"),
        against("loads/s of a recent state : echo", "echo", 0.5, above="load"),
    )


LANGGRAPH = ("langgraph_plain", "langgraph_pipeline", "langgraph_pool")


def _langgraph(concurrency: int) -> Target:
    return Target(
        name="saves/s : the best AsyncPostgresSaver, in-process",
        concurrency=str(concurrency),
        bound="at least",
        limit=3.0,
        numerator=Key("save_beside_rivals", concurrency=concurrency),
        denominators=tuple(Key(name, concurrency=concurrency) for name in LANGGRAPH),
        best=True,
    )


def _around(concurrency: int) -> Target:
    return Target(
        name="mean duration of a save, `around` stream, optimized : standard",
        concurrency=f"{concurrency} agent{'s' if concurrency > 1 else ''}",
        bound="at most",
        limit=0.7,
        numerator=Key("around_optimized", "mean_us", concurrency),
        denominators=(Key("around_standard", "mean_us", concurrency),),
    )


def _bytes(name: str, above: str, below: str, limit: float) -> Target:
    return Target(
        name=name,
        concurrency="1",
        bound="at least",
        limit=limit,
        numerator=Key(above, "database_bytes"),
        denominators=(Key(below, "database_bytes"),),
    )


def _ghz(name: str, concurrency: int, below: str, limit: float) -> Target:
    return Target(
        name=name,
        concurrency=f"{concurrency}, ghz",
        bound="at least",
        limit=limit,
        numerator=Key("ghz_save", concurrency=concurrency),
        denominators=(Key(below, concurrency=concurrency),),
    )


TARGETS: Sequence[Target] = (
    *_throughput(64),
    *_throughput(256),
    *(
        Target(
            name=f"saves/s, telemetry sent, {percent} % of the saves sampled : none sent",
            concurrency="64",
            bound="at least",
            limit=limit,
            numerator=Key(f"save_otlp_{percent}", concurrency=64),
            denominators=(Key("save_monitored", concurrency=64),),
        )
        # Ten percent and a quarter are what watching may cost.
        for percent, limit in ((1, 0.90), (100, 0.75))
    ),
    Target(
        name="p50 of a lone save : echo + raw asyncpg statement",
        concurrency="1",
        bound="at most",
        limit=1.8,
        numerator=Key("save", "p50_us", 1),
        denominators=(Key("echo", "p50_us", 1), Key("asyncpg", "p50_us", 1)),
    ),
    Target(
        name="streaming saves/s : unary saves/s of the same Python client",
        concurrency="16 in flight",
        bound="at least",
        limit=2.0,
        numerator=Key("python_stream", concurrency=16),
        denominators=(Key("python_unary", concurrency=16),),
    ),
    _langgraph(16),
    _langgraph(64),
    Target(
        name="SQLite, saves/s : AsyncSqliteSaver, in-process",
        concurrency="64",
        bound="at least",
        limit=3.0,
        numerator=Key("sqlite", concurrency=64),
        denominators=(Key("langgraph_sqlite", concurrency=64),),
    ),
    _bytes("bytes, 200-step growing run, full JSON : database", "growing_json", "growing", 45),
    _bytes(
        "bytes, 200-step growing run, LangGraph's tables : database",
        "growing_langgraph",
        "growing",
        20,
    ),
    _bytes("bytes, `after` stream, full JSON : database", "after_json", "after", 10),
    Target(
        name="p50 of loading a version at the greatest chain depth : a raw row of that size",
        concurrency="1",
        bound="at most",
        limit=3.0,
        numerator=Key("version", "p50_us", 1),
        denominators=(Key("raw_row", "p50_us", 1),),
    ),
    _ghz("saves/s : echo", 16, "ghz_echo", 0.5),
    _ghz("saves/s : echo", 64, "ghz_echo", 0.5),
    _ghz("saves/s : Dapr sidecar", 16, "ghz_dapr", 1.0),
    _ghz("saves/s : Dapr sidecar", 64, "ghz_dapr", 1.15),
    Target(
        name="SQLite, saves/s : aiosqlite session per save, same front",
        concurrency="64",
        bound="at least",
        limit=3.0,
        numerator=Key("sqlite", concurrency=64),
        denominators=(Key("sqlite_orm", concurrency=64),),
    ),
    Target(
        name="memory after 1,000,000 saves : after 100,000 (`make soak`)",
        concurrency="64",
        bound="at most",
        limit=1.05,
        numerator=Key("soak_end", "memory_bytes"),
        denominators=(Key("soak_begin", "memory_bytes"),),
    ),
    Target(
        name="memory, optimized : standard, after the same load",
        concurrency="64",
        bound="at most",
        limit=1.05,
        numerator=Key("memory_optimized", "memory_bytes"),
        denominators=(Key("memory_standard", "memory_bytes"),),
    ),
    Target(
        name="latency of the whole demo agent, optimized : standard",
        concurrency="1 agent",
        bound="at most",
        limit=0.85,
        numerator=Key("agent_optimized", "mean_us", 1),
        denominators=(Key("agent_standard", "mean_us", 1),),
    ),
    Target(
        name="routes that the cache chose right, `around` stream",
        concurrency="16 agents",
        bound="at least",
        limit=0.6,
        numerator=Key("around_optimized", "routes_right", 16),
        unit="%",
    ),
    _around(1),
    _around(16),
)
