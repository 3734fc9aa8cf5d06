"""A lone save, without any other load: what one agent waits for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.bench import ECHO, Bench, rotated
from benchmarks.measurements import latency_values
from benchmarks.processes import Server, Worker, rival_server, worker
from benchmarks.scenarios import MeasureRound

RUNS = 64


@asynccontextmanager
async def open_lone(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start an echo, a statekeep on each path, and asyncpg with nothing around it."""
    async with (
        rival_server("echo", bench.folder) as echo,
        bench.statekeep("lone", optimized=True) as save,
        bench.statekeep("lone_standard", optimized=False) as standard,
        bench.database() as url,
        worker("rivals.rows", bench.folder) as rows,
    ):
        servers = {"echo": echo, "save": save, "standard": standard}
        yield partial(_measure, bench, servers, rows, url)


async def _measure(
    bench: Bench, servers: dict[str, Server], rows: Worker, url: str, number: int
) -> None:
    for contender in rotated((*servers, "asyncpg"), number):
        if contender == "asyncpg":
            meter = bench.meter()
            answer = await rows.ask(
                {
                    "url": url,
                    "recording": str(bench.recording),
                    "prefix": f"lone{number}",
                    "duration_s": bench.plan.measure_s,
                    "state_bytes": bench.plan.state_bytes,
                    "runs": RUNS,
                }
            )
            rate = len(answer["latencies_us"]) / bench.plan.measure_s
            bench.note(
                "asyncpg",
                1,
                number,
                rate=rate,
                foreign_cores=meter.foreign_cores(),
                **latency_values(answer["latencies_us"]),
            )
        else:
            path = {"path": ECHO} if contender == "echo" else {}
            await bench.measure(
                contender,
                number,
                servers[contender],
                concurrency=1,
                kind="save",
                prefix="lone",
                runs=RUNS,
                first_step=1_000 * number,
                **path,
            )
