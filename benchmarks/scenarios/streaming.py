"""One Python client that saves over a stream, against the same client with unary calls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.bench import Bench, rotated
from benchmarks.features import streaming
from benchmarks.processes import Server, Worker, worker
from benchmarks.scenarios import MeasureRound

IN_FLIGHT = 16
NOT_YET = "not available yet: the server has no streaming save"


@asynccontextmanager
async def open_streaming(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start a server and the client."""
    async with (
        bench.statekeep("streaming", optimized=True) as server,
        worker("python_client", bench.folder) as client,
    ):
        yield partial(_measure, bench, server, client)


async def _measure(bench: Bench, server: Server, client: Worker, number: int) -> None:
    for way in rotated(("unary", "stream"), number):
        if way == "stream" and streaming() is None:
            bench.lacks(NOT_YET, "python_stream")
            continue
        meter = bench.meter()
        answer = await client.ask(
            {
                "way": way,
                "target": server.target,
                "recording": str(bench.recording),
                "prefix": way,
                "first_step": 1_000 * number,
                "in_flight": IN_FLIGHT,
                "duration_s": bench.plan.measure_s,
                "state_bytes": bench.plan.state_bytes,
            }
        )
        if "refused" in answer:
            bench.lacks(f"{NOT_YET} ({answer['refused']})", f"python_{way}")
            continue
        bench.note(
            f"python_{way}",
            IN_FLIGHT,
            number,
            rate=answer["answered"] / answer["elapsed_s"],
            client_cores=answer["cpu_s"] / answer["elapsed_s"],
            foreign_cores=meter.foreign_cores(),
        )
