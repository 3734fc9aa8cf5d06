"""What runs on loopback while the agents work: database, server, and what takes its telemetry."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from statekeep_server.bench.server_process import server_process
from statekeep_server.storage.migrate import migrate
from tools.observe.jaeger import jaeger
from tools.observe.processes import HOST, Failed, free_port
from tools.observe.prometheus import Prometheus, prometheus
from tools.observe.receiver import receiver
from tools.observe.shared_commit import Traces
from tools.private_postgresql import private_postgresql

NO_POSTGRESQL = (ImportError, OSError, subprocess.SubprocessError)
EXPORT_EVERY_MS = 500
"""Spans wait up to five seconds by default: too long for somebody who looks on."""


@dataclass(frozen=True, slots=True)
class Programs:
    """What is there: None for a program that is missing."""

    jaeger: Path | None
    go_agent: Path | None
    prometheus: Path | None


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs while the agents work."""

    target: str
    metrics: str
    traces: Traces
    prometheus: Prometheus | None


@asynccontextmanager
async def stage(programs: Programs, folder: Path) -> AsyncIterator[Stage]:
    """Start PostgreSQL, what takes spans, the server and Prometheus, in this order."""
    async with AsyncExitStack() as stack:
        tell("Starting PostgreSQL ...")
        try:
            database = stack.enter_context(private_postgresql())
        except NO_POSTGRESQL as error:
            raise Failed(f"PostgreSQL cannot be started here: {error}") from None
        url = make_url(database.get_uri()).set(drivername="postgresql+asyncpg")
        dsn = url.render_as_string(hide_password=False)
        await migrate(dsn)
        traces: Traces
        if programs.jaeger is None:
            loud("Jaeger is not built, for want of Go: a small receiver of ours takes the spans")
            traces = await stack.enter_async_context(receiver())
        else:
            tell("Starting Jaeger ...")
            traces = await stack.enter_async_context(jaeger(programs.jaeger, folder))
        tell("Starting statekeep ...")
        metrics = free_port()
        server = await stack.enter_async_context(
            server_process(
                folder,
                database_url=dsn,
                optimized=True,
                arguments=("--metrics-port", str(metrics)),
                variables=telemetry(traces.endpoint, "statekeep"),
            )
        )
        scraper = None
        if programs.prometheus is None:
            loud("Prometheus is missing (the package `prometheus`): nothing scrapes the metrics")
        else:
            tell("Starting Prometheus ...")
            scraper = await stack.enter_async_context(
                prometheus(programs.prometheus, folder, target=metrics)
            )
        yield Stage(server.target, f"http://{HOST}:{metrics}/metrics", traces, scraper)


def telemetry(endpoint: str, service: str) -> dict[str, str]:
    """The variables that make a program send its spans soon, and all of them, to an endpoint."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": service,
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "OTEL_BSP_SCHEDULE_DELAY": str(EXPORT_EVERY_MS),
        "OTEL_METRICS_EXPORTER": "none",  # Prometheus pulls them
    }


def tell(words: str) -> None:
    """Say what happens now."""
    print(words, file=sys.stderr, flush=True)


def loud(words: str) -> None:
    """Say what is missing."""
    print(f"\n*** {words}. ***\n", file=sys.stderr, flush=True)
