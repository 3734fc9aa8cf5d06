"""LangGraph's savers and pgbench: rivals that save without a server between."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.bench import Bench, rotated, run_program
from benchmarks.measurements import latency_values
from benchmarks.processes import Worker, worker
from benchmarks.scenarios import MeasureRound
from benchmarks.states import make_states

CONFIGS = ("plain", "pipeline", "pool", "savers")
CONCURRENCIES = (16, 64)
LANGGRAPH = "langgraph.checkpoint.postgres"
NO_LANGGRAPH = "LangGraph's savers are not installed: `make bench` does that"
NO_PGBENCH = "pgbench is neither beside this PostgreSQL nor on the path"


def has_langgraph() -> bool:
    """Whether LangGraph's savers can be imported."""
    return bool(find_spec("langgraph") and find_spec("psycopg"))


@asynccontextmanager
async def open_rivals(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start the worker that has LangGraph, and make pgbench's table."""
    async with bench.database() as langgraph_url, bench.database() as pgbench_url:
        pgbench = bench.postgres().pgbench()
        if pgbench is None:
            bench.lacks(NO_PGBENCH, "pgbench")
        else:
            await _prepare_pgbench(bench, pgbench_url)
        if not has_langgraph():
            bench.lacks(NO_LANGGRAPH, *(f"langgraph_{config}" for config in CONFIGS))
            yield partial(_measure, bench, None, langgraph_url, pgbench, pgbench_url)
            return
        async with worker("rivals.langgraph", bench.folder) as langgraph:
            yield partial(_measure, bench, langgraph, langgraph_url, pgbench, pgbench_url)


async def _measure(
    bench: Bench,
    langgraph: Worker | None,
    langgraph_url: str,
    pgbench: str | None,
    pgbench_url: str,
    number: int,
) -> None:
    for concurrency in CONCURRENCIES:
        if langgraph is not None:
            for config in rotated(CONFIGS, number):
                await measure_langgraph(
                    bench, langgraph, config, langgraph_url, concurrency, number
                )
        if pgbench is not None:
            await _measure_pgbench(bench, pgbench, pgbench_url, concurrency, number)


async def measure_langgraph(
    bench: Bench, langgraph: Worker, config: str, url: str, concurrency: int, number: int
) -> None:
    """One configuration of LangGraph's savers."""
    answer = await langgraph.ask(
        {
            "config": config,
            "url": url,
            "recording": str(bench.recording),
            "concurrency": concurrency,
            "duration_s": bench.plan.measure_s,
            "state_bytes": bench.plan.state_bytes,
        }
    )
    bench.note(
        f"langgraph_{config}",
        concurrency,
        number,
        rate=answer["answered"] / answer["elapsed_s"],
        client_cores=answer["cpu_s"] / answer["elapsed_s"],
        **latency_values(answer["latencies_us"]),
    )


async def _prepare_pgbench(bench: Bench, url: str) -> None:
    await bench.postgres().query(
        "CREATE TABLE saves (save_id bigserial PRIMARY KEY, run_id text NOT NULL, "
        "state bytea NOT NULL)",
        url=url,
    )
    await bench.postgres().query(
        "ALTER TABLE saves ALTER COLUMN state SET STORAGE EXTERNAL", url=url
    )
    states = make_states(bench.recording, state_bytes=bench.plan.state_bytes)
    state = states.state("pgbench-0", 1).hex()
    # pgbench takes no parameters: the text is the script, and the state is hexadecimal.
    script = f"INSERT INTO saves (run_id, state) VALUES ('run-' || :client_id, '\\x{state}');\n"  # noqa: S608 -- as said above
    (bench.folder / "pgbench.sql").write_text(script)


async def _measure_pgbench(
    bench: Bench, pgbench: str, url: str, concurrency: int, number: int
) -> None:
    seconds = max(1, round(bench.plan.measure_s))
    printed = await run_program(
        pgbench,
        *("--no-vacuum", "--protocol", "prepared", "--file", str(bench.folder / "pgbench.sql")),
        *("--client", str(concurrency), "--jobs", "1", "--time", str(seconds)),
        *("--host", bench.postgres().socket_folder, "--username", "postgres"),
        url.rpartition("/")[2].partition("?")[0],
    )
    tps = re.search(r"tps = ([0-9.]+)", printed)
    if tps is None:
        bench.problems.append("pgbench printed no rate")
    else:
        bench.note("pgbench", concurrency, number, rate=float(tps[1]))


def dapr_missing(bench: Bench) -> None:
    """Say what a comparison with Dapr needs; `make load` makes it, through ghz."""
    if "dapr" not in bench.plan.rivals:
        bench.lacks("asked for by RIVALS=dapr, measured by `make load`", "ghz_dapr")
    elif shutil.which("go") is None:
        bench.lacks("Go is not installed", "ghz_dapr")
    elif not Path("tools/dapr").exists():
        bench.lacks("there is no tools/dapr", "ghz_dapr")
