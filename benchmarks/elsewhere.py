"""Numbers that other commands measured: `make load` (through ghz) and `make soak`.

Each leaves a file beside the results, with measurements in the form of this package. Their rows
join the table; without the file the row says which command makes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.bench import Bench


@dataclass(frozen=True, slots=True)
class Source:
    """A file of measurements: `{"rounds": [{contender, concurrency, round_number, values}]}`."""

    file: str
    command: str
    contenders: Sequence[str]


SOURCES = (
    Source("load.json", "make load", ("ghz_save", "ghz_echo", "ghz_dapr")),
    Source("soak.json", "make soak", ("soak_begin", "soak_end")),
)


def add_elsewhere(bench: Bench, folder: Path) -> None:
    """Add what the files hold, and say what is missing."""
    for source in SOURCES:
        file = folder / source.file
        found = orjson.loads(file.read_bytes())["rounds"] if file.exists() else []
        for each in found:
            bench.note(
                each["contender"], each["concurrency"], each["round_number"], **each["values"]
            )
        present = {each["contender"] for each in found}
        bench.missing.update(
            {
                name: f"not measured: run `{source.command}`"
                for name in source.contenders
                if name not in present and name not in bench.missing
            }
        )
