"""What it costs to watch: saves with monitoring off, and with spans and metrics sent to a receiver.

Servers are told by OpenTelemetry's own variables. The receiver is a process of its own that takes
everything and reads nothing of it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec

from benchmarks.bench import Bench, rotated
from benchmarks.processes import Server, Worker, worker
from benchmarks.scenarios import MeasureRound

CONCURRENCY = 64
RUNS = 1_024
WATCHED, UNWATCHED = "save_monitored", "save_unmonitored"
SAMPLED = {"save_otlp_1": 0.01, "save_otlp_100": 1.0}
CONTENDERS = (WATCHED, UNWATCHED, *SAMPLED)
NOT_YET = "not available yet: the server sends no spans"
SENT_EVERY_S = 5.0
"""Spans are sent so often by default: a shorter measurement holds all of that or nothing."""
FIRST_SPANS_S = 15


def sampled_variables(port: int, share: float) -> dict[str, str]:
    """Send everything to a receiver, and the spans of a share of the saves."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": f"{share:g}",
    }


@asynccontextmanager
async def open_telemetry(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start the receiver, and a server for each way of watching."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context

        async def start(name: str, variables: Mapping[str, str]) -> Server:
            return await enter(bench.statekeep(name, optimized=True, variables=variables))

        servers = {
            WATCHED: await start(WATCHED, {}),
            UNWATCHED: await start(UNWATCHED, {"OPTIMIZED_PERSISTENCE_MONITORING": "false"}),
        }
        if find_spec("opentelemetry") is None:
            bench.lacks(NOT_YET, *SAMPLED)
        else:
            receiver = await enter(worker("otlp_receiver", bench.folder))
            port = int(await receiver.read())
            for name, share in SAMPLED.items():
                servers[name] = await start(name, sampled_variables(port, share))
            if not await _spans_come(bench, servers["save_otlp_100"], receiver):
                bench.lacks(NOT_YET, *SAMPLED)
                servers = {name: servers[name] for name in (WATCHED, UNWATCHED)}
        yield partial(_measure, bench, servers)


async def _spans_come(bench: Bench, server: Server, receiver: Worker) -> bool:
    """Whether a server that samples everything sends spans; a target must not be met by silence."""
    await bench.send(server, kind="prepare", concurrency=1, prefix="first", runs=1)
    for _ in range(FIRST_SPANS_S):
        if (await receiver.ask({})).get("traces_bytes"):
            return True
        await asyncio.sleep(1.0)
    return False


async def _measure(bench: Bench, servers: dict[str, Server], number: int) -> None:
    shortest_s = 0.0 if bench.plan.is_quick else SENT_EVERY_S
    for contender in rotated(tuple(servers), number):
        await bench.measure(
            contender,
            number,
            servers[contender],
            concurrency=CONCURRENCY,
            kind="save",
            prefix="watched",
            runs=RUNS,
            first_step=1_000 * number,
            duration_s=max(bench.plan.measure_s, shortest_s),
        )
