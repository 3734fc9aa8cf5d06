"""Ratios that have no target, for whoever asks "and against …?".

They are made as targets are: within a round, with their median and spread.
"""

from collections.abc import Iterator, Sequence

from benchmarks.measurements import Key
from benchmarks.targets import Target


def _ratio(
    name: str, concurrency: str, above: Key, *below: Key, best: bool = False, unit: str = "×"
) -> Target:
    return Target(
        name=name,
        concurrency=concurrency,
        bound="at least",
        limit=0.0,
        numerator=above,
        denominators=below,
        best=best,
        unit=unit,
    )


def _rivals(concurrency: int) -> Iterator[Target]:
    above = Key("save_beside_rivals", concurrency=concurrency)
    for name, contender in (
        ("four AsyncPostgresSavers, in-process", "langgraph_savers"),
        ("pgbench, a row per transaction, no server between", "pgbench"),
    ):
        below = Key(contender, concurrency=concurrency)
        yield _ratio(f"saves/s : {name}", str(concurrency), above, below)


BESIDE: Sequence[Target] = (
    *_rivals(16),
    *_rivals(64),
    *(
        _ratio(
            name,
            str(concurrency),
            Key(above, concurrency=concurrency),
            Key(below, concurrency=concurrency),
        )
        for name, above, below in (
            ("the least that a durable save can cost : echo", "least", "echo"),
            ("the same with what we derive of a save : echo", "prepared", "echo"),
            ("and with our groups and store : echo", "stored", "echo"),
            ("durable saves/s : the least that a durable save can cost", "save", "least"),
        )
        for concurrency in (64, 256)
    ),
    *(
        _ratio(
            "durable saves/s, compression and telemetry off : as shipped",
            str(concurrency),
            Key("save_plain", concurrency=concurrency),
            Key("save", concurrency=concurrency),
        )
        for concurrency in (64, 256)
    ),
    _ratio(
        "saves/s, monitoring on : off",
        "64",
        Key("save_monitored", concurrency=64),
        Key("save_unmonitored", concurrency=64),
    ),
    _ratio(
        "p50 of a lone save : standard path",
        "1",
        Key("save", "p50_us", 1),
        Key("standard", "p50_us", 1),
    ),
    *(
        _ratio(
            f"bytes without what the empty tables take, {run}, {what} : database",
            "1",
            Key(f"{which}_{above}", "rows_bytes"),
            Key(which, "rows_bytes"),
        )
        for run, which in (("200-step growing run", "growing"), ("`after` stream", "after"))
        for what, above in (("full JSON", "json"), ("LangGraph's tables", "langgraph"))
    ),
    _ratio(
        "memory, optimized : standard, with runs of 10 kB that came back twice",
        "64",
        Key("memory_optimized", "busy_bytes"),
        Key("memory_standard", "busy_bytes"),
    ),
    _ratio(
        "p99 of eight small savers beside 3 MB saves : without them",
        "8",
        Key("small_beside_large", "p99_us", 8),
        Key("small_alone", "p99_us", 8),
    ),
)
