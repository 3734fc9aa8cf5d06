"""LangGraph's savers and pgbench: rivals that save without a server between, and statekeep."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.bench import Bench, rotated, run_program
from benchmarks.measurements import latency_values
from benchmarks.processes import Server, Worker, worker
from benchmarks.scenarios import MeasureRound
from benchmarks.states import make_states

CONFIGS = ("plain", "pipeline", "pool", "savers")
CONCURRENCIES = (16, 64)
SAVE, PGBENCH = "save_beside_rivals", "pgbench"
RUNS = 1_024
LANGGRAPH = "langgraph.checkpoint.postgres"
NO_LANGGRAPH = "LangGraph's savers are not installed: `make bench` does that"
NO_PGBENCH = "pgbench is neither beside this PostgreSQL nor on the path"


def has_langgraph() -> bool:
    """Whether LangGraph's savers can be imported."""
    return bool(find_spec("langgraph") and find_spec("psycopg"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What is there to be measured.

    Attributes:
        langgraph: The worker that has LangGraph; None where it is not installed.
        pgbench: The program; None where there is none.
    """

    save: Server
    langgraph: Worker | None
    langgraph_url: str
    pgbench: str | None
    pgbench_url: str

    def contenders(self) -> tuple[str, ...]:
        """Who is there, in the order of the first round."""
        savers = CONFIGS if self.langgraph else ()
        return (SAVE, *savers, *((PGBENCH,) if self.pgbench else ()))


@asynccontextmanager
async def open_rivals(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start statekeep and the worker that has LangGraph, and make pgbench's table."""
    pgbench = bench.postgres().pgbench()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        langgraph_url, pgbench_url = await enter(bench.database()), await enter(bench.database())
        if pgbench is None:
            bench.lacks(NO_PGBENCH, PGBENCH)
        else:
            await _prepare_pgbench(bench, pgbench_url)
        langgraph = None
        if has_langgraph():
            langgraph = await enter(worker("rivals.langgraph", bench.folder))
        else:
            bench.lacks(NO_LANGGRAPH, *(f"langgraph_{config}" for config in CONFIGS))
        opened = _Opened(
            save=await enter(bench.statekeep(SAVE, optimized=True)),
            langgraph=langgraph,
            langgraph_url=langgraph_url,
            pgbench=pgbench,
            pgbench_url=pgbench_url,
        )
        yield partial(_measure, bench, opened)


async def _measure(bench: Bench, opened: _Opened, number: int) -> None:
    for concurrency in CONCURRENCIES:
        for contender in rotated(opened.contenders(), number):
            if contender == SAVE:
                await bench.measure(
                    SAVE,
                    number,
                    opened.save,
                    concurrency=concurrency,
                    kind="save",
                    prefix=f"save{concurrency}",
                    runs=RUNS,
                    first_step=1_000 * number,
                )
            elif contender == PGBENCH:
                await _measure_pgbench(bench, opened, concurrency, number)
            elif opened.langgraph is not None:
                await measure_langgraph(
                    bench, opened.langgraph, contender, opened.langgraph_url, concurrency, number
                )


async def measure_langgraph(
    bench: Bench, langgraph: Worker, config: str, url: str, concurrency: int, number: int
) -> None:
    """One configuration of LangGraph's savers."""
    meter = bench.meter()
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
        foreign_cores=meter.foreign_cores(),
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


async def _measure_pgbench(bench: Bench, opened: _Opened, concurrency: int, number: int) -> None:
    meter = bench.meter()
    seconds = max(1, round(bench.plan.measure_s))
    printed = await run_program(
        str(opened.pgbench),
        *("--no-vacuum", "--protocol", "prepared", "--file", str(bench.folder / "pgbench.sql")),
        *("--client", str(concurrency), "--jobs", "1", "--time", str(seconds)),
        *("--host", bench.postgres().socket_folder, "--username", "postgres"),
        opened.pgbench_url.rpartition("/")[2].partition("?")[0],
    )
    tps = re.search(r"tps = ([0-9.]+)", printed)
    if tps is None:
        bench.problems.append("pgbench printed no rate")
    else:
        foreign_cores = meter.foreign_cores()
        bench.note(PGBENCH, concurrency, number, rate=float(tps[1]), foreign_cores=foreign_cores)


def dapr_missing(bench: Bench) -> None:
    """Say what a comparison with Dapr needs; `make load` makes it, through ghz."""
    if "dapr" not in bench.plan.rivals:
        bench.lacks("asked for by RIVALS=dapr, measured by `make load`", "ghz_dapr")
    elif shutil.which("go") is None:
        bench.lacks("Go is not installed", "ghz_dapr")
    elif not Path("tools/dapr").exists():
        bench.lacks("there is no tools/dapr", "ghz_dapr")
