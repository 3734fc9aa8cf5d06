"""A private Jaeger: takes spans by OTLP, keeps them in memory, and is asked by its query API."""

import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from tools.observe.processes import HOST, free_port, get_json, running, until
from tools.observe.spans import Span, read_spans

START_TIMEOUT_S = 60.0
"""A cold start of 85 MB on a busy machine; a healthy one takes about a second."""

# Its own defaults listen on a dozen ports; these are all that is needed here.
CONFIGURATION = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{ receivers: [otlp], exporters: [jaeger_storage_exporter] }}
  telemetry:
    metrics: {{ level: none }}
    logs: {{ level: warn }}
extensions:
  jaeger_storage:
    backends:
      memory: {{ memory: {{ max_traces: 100000 }} }}
  jaeger_query:
    storage: {{ traces: memory }}
    http: {{ endpoint: "{host}:{http}" }}
    grpc: {{ endpoint: "{host}:{grpc}" }}
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: "{host}:{otlp}" }}
exporters:
  jaeger_storage_exporter: {{ trace_storage: memory }}
"""


class Jaeger:
    """A running Jaeger.

    Attributes:
        endpoint: Where spans are sent, by OTLP over gRPC.
        page: Its page and its API.
    """

    kind = "Jaeger"

    def __init__(self, *, otlp: int, http: int) -> None:
        self.endpoint = f"http://{HOST}:{otlp}"
        self.page = f"http://{HOST}:{http}"
        self._http = http

    def trace_ids(self) -> Iterable[str]:
        """None: whoever made a trace knows its id."""
        return ()

    def address(self, trace_id: str) -> str:
        """Where a trace is found, as OTLP's JSON."""
        return f"{self.page}/api/v3/traces/{trace_id}"

    async def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have arrived so far."""
        found = await get_json(self._http, f"/api/v3/traces/{trace_id}")
        return read_spans(found["result"].get("resourceSpans", [])) if found else []

    async def services(self) -> list[str] | None:
        """The names of the services that sent spans; None while Jaeger does not answer."""
        found = await get_json(self._http, "/api/v3/services")
        return None if found is None else list(found.get("services", ()))

    async def answers(self, process: Process, log: Path) -> None:
        """Wait until it answers.

        Raises:
            Failed: It did not.
        """
        await until(
            "Jaeger starts", self.services, within_s=START_TIMEOUT_S, process=process, log=log
        )


@asynccontextmanager
async def jaeger(program: Path, folder: Path) -> AsyncIterator[Jaeger]:
    """Start a Jaeger on free ports of loopback; its configuration and log go to the folder.

    Raises:
        Failed: It did not start.
    """
    otlp, http, grpc = free_port(), free_port(), free_port()
    configuration, log = folder / "jaeger.yaml", folder / "jaeger.log"
    configuration.write_text(CONFIGURATION.format(host=HOST, otlp=otlp, http=http, grpc=grpc))
    async with running(
        program, "--config", configuration, log=log, variables=os.environ
    ) as process:
        server = Jaeger(otlp=otlp, http=http)
        await server.answers(process, log)
        yield server
