"""A Prometheus of one's own, for tests and pictures: on a free port of loopback, gone at the end.

The program comes from the system (Debian's package is called prometheus). Nothing here installs it.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 120.0
"""Long, because a machine that runs all tests at once can be slow."""
POLL_S = 0.2


class NoPrometheus(Exception):
    """There is no program `prometheus` here, or it does not start."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of an answer: its labels, and its points as seconds and values."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def now(self, query: str) -> tuple[Series, ...]:
        """Ask for the values of this moment."""
        return _series(self._ask("query", query=query))

    def between(
        self, query: str, begin_s: float, end_s: float, step_s: float
    ) -> tuple[Series, ...]:
        """Ask for the values of a time, one for each step."""
        answer = self._ask("query_range", query=query, start=begin_s, end=end_s, step=step_s)
        return _series(answer)

    def wait_for(self, query: str, enough: Callable[[tuple[Series, ...]], bool]) -> None:
        """Wait until the answer to a query is enough.

        Raises TimeoutError where that takes too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not enough(self.now(query)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not enough for {query}")
            time.sleep(POLL_S)

    def _ask(self, what: str, **parameters: str | float) -> Any:
        words = urllib.parse.urlencode(parameters).encode()
        address = f"{self.url}/api/v1/{what}"
        with urllib.request.urlopen(address, words) as answer:  # noqa: S310  # always http, ours
            return json.load(answer)["data"]["result"]


def _series(result: Any) -> tuple[Series, ...]:
    return tuple(
        Series(
            labels=one["metric"],
            points=tuple(
                (float(at), float(value)) for at, value in one.get("values") or [one["value"]]
            ),
        )
        for one in result
    )


@contextmanager
def private_prometheus(
    targets: Sequence[str], *, rules: Sequence[Path] = (), interval_s: float = 1.0
) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes the targets, `host:port`, as the job `statekeep`.

    Raises NoPrometheus where none can be started.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise NoPrometheus("there is no program `prometheus` here")
    folder = Path(tempfile.mkdtemp(prefix="statekeep-prometheus-"))
    interval = f"{round(interval_s * 1000)}ms"
    (folder / "prometheus.yaml").write_text(
        json.dumps(  # which is YAML too
            {
                "global": {
                    "scrape_interval": interval,
                    "scrape_timeout": interval,
                    "evaluation_interval": interval,
                },
                "rule_files": [str(path) for path in rules],
                "scrape_configs": [
                    {"job_name": "statekeep", "static_configs": [{"targets": list(targets)}]}
                ],
            }
        )
    )
    log = folder / "log"
    command = [
        program,
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        yield Prometheus(_address(process, log))
    finally:
        process.kill()  # its data go with it
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait for it, and return the address that it listens on."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        said = log.read_text(encoding="utf-8")
        found = re.search(r'msg="Listening on" address=(\S+)', said)
        if found and "ready to receive web requests" in said:
            return f"http://{found[1]}"
        time.sleep(POLL_S)
    raise NoPrometheus(f"prometheus did not start: {log.read_text(encoding='utf-8')[-2000:]}")
