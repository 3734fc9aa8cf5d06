"""A private Prometheus that scrapes one server."""

import os
import shutil
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tools.observe.processes import HOST, free_port, get_json, running, until

START_TIMEOUT_S = 60.0
SCRAPE_EVERY_S = 1
"""A demonstration has no patience."""
CONFIGURATION = """
global: {{ scrape_interval: {every}s }}
scrape_configs:
  - job_name: statekeep
    static_configs: [{{ targets: ["{host}:{target}"] }}]
"""


class Prometheus:
    """A running Prometheus."""

    def __init__(self, http: int) -> None:
        self.page = f"http://{HOST}:{http}"
        self._http = http

    async def query(self, expression: str) -> float | None:
        """The value of an expression that gives one; None while there is none."""
        asked = urllib.parse.urlencode({"query": expression})
        found = await get_json(self._http, f"/api/v1/query?{asked}")
        results = found["data"]["result"] if found else []
        return float(results[0]["value"][1]) if results else None

    async def saves(self) -> float | None:
        """How many saves it has seen; None while it has seen none."""
        return await self.query("sum(statekeep_saves_total)") or None

    async def scraped(self) -> bool | None:
        """True when a scrape of the server has succeeded, else None."""
        return True if await self.query("up") == 1.0 else None


def find_prometheus() -> Path | None:
    """The program of the system's packages."""
    found = shutil.which("prometheus")
    return Path(found) if found else None


@asynccontextmanager
async def prometheus(program: Path, folder: Path, *, target: int) -> AsyncIterator[Prometheus]:
    """Start a Prometheus that scrapes a port of loopback, and wait for its first scrape.

    Raises:
        Failed: It did not start, or the server did not let itself be scraped.
    """
    http = free_port()
    configuration, log = folder / "prometheus.yaml", folder / "prometheus.log"
    configuration.write_text(CONFIGURATION.format(every=SCRAPE_EVERY_S, host=HOST, target=target))
    command = (
        *(program, f"--config.file={configuration}", f"--web.listen-address={HOST}:{http}"),
        *(f"--storage.tsdb.path={folder / 'prometheus'}", "--log.level=warn"),
    )
    async with running(*command, log=log, variables=os.environ) as process:
        server = Prometheus(http)
        await until(
            "Prometheus scrapes the server",
            server.scraped,
            within_s=START_TIMEOUT_S,
            process=process,
            log=log,
        )
        yield server
