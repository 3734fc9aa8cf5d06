"""One run of ghz: what is asked of it, and what it saw."""

import asyncio
import math
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = Path(__file__).parent
OK = "OK"
GRACE_S = 60.0
"""For the calls under way when ghz is told to end."""
FIRST_MS, FACTOR = 0.1, 1.3
"""The histogram's first bound, and how much larger each next one is."""


class GhzFailed(Exception):
    """Ghz ended without a report. The text is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What ghz is to do.

    Attributes:
        options: The name of the option file, without its suffix.
        target: Host and port.
        calls: One per body.
        max_duration_s: After this no call begins any more.
        rps: Begin so many calls a second; None: begin one when another is answered.
    """

    options: str
    target: str
    bodies: Path
    calls: int
    concurrency: int
    connections: int
    max_duration_s: int
    rps: int | None = None

    def command(self, ghz: Path, output: Path) -> list[str]:
        """The command line, to be run in the project's folder."""
        pace = [] if self.rps is None else ["--async", "--rps", str(self.rps)]
        return [
            str(ghz),
            *("--config", str(OPTIONS / f"{self.options}.toml")),
            *("--binary-file", str(self.bodies)),
            *("--total", str(self.calls)),
            *("--concurrency", str(self.concurrency)),
            *("--connections", str(min(self.connections, self.concurrency))),
            *pace,
            *("--format", "json", "--output", str(output)),
            self.target,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What ghz saw.

    Attributes:
        duration_s: From the first call to the last answer.
        statuses: Calls by the name of their gRPC status.
        errors: Calls that failed, by what the server said.
        ended_s: When the calls that were OK ended, in their order, as Unix time.
        latency_ms: How long each of those took.
    """

    duration_s: float
    statuses: Mapping[str, int]
    errors: Mapping[str, int]
    ended_s: Sequence[float]
    latency_ms: Sequence[float]

    @property
    def ok(self) -> int:
        """Calls that succeeded."""
        return self.statuses.get(OK, 0)

    @property
    def calls(self) -> int:
        """Calls that were answered, whatever the answer."""
        return sum(self.statuses.values())

    @property
    def rate(self) -> float:
        """Successful calls per second."""
        return self.ok / self.duration_s if self.duration_s else 0.0


async def run_ghz(ghz: Path, order: Order, output: Path) -> Seen:
    """Let ghz load a server. Raises GhzFailed."""
    process = await asyncio.create_subprocess_exec(
        *order.command(ghz, output),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    try:
        said = await _wait(process, order.max_duration_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise GhzFailed(said.decode(errors="replace").strip() or f"exit code {process.returncode}")
    return parse_report(_take(output))


async def _wait(process: asyncio.subprocess.Process, max_duration_s: float) -> bytes:
    """Wait for ghz to end, from some time on by asking it to.

    Its own `--max-duration` would make it forget the number of calls.
    """
    ended = asyncio.ensure_future(process.communicate())
    try:
        done, _ = await asyncio.wait([ended], timeout=max_duration_s)
        if not done:
            process.send_signal(signal.SIGINT)  # ghz begins no more calls, and reports
            done, _ = await asyncio.wait([ended], timeout=GRACE_S)
        if not done:
            raise GhzFailed(f"ghz did not end in {max_duration_s + GRACE_S:.0f} s")
        return ended.result()[0]
    finally:
        ended.cancel()


def _take(output: Path) -> Any:
    """Read a report and remove it: it holds every single call, a megabyte of them."""
    report = orjson.loads(output.read_bytes())
    output.unlink()
    return report


def parse_report(report: Mapping[str, Any]) -> Seen:
    """Read ghz's JSON report."""
    calls = [call for call in report["details"] or () if call["status"] == OK]
    ends = sorted(
        (datetime.fromisoformat(call["timestamp"]).timestamp(), call["latency"] / 1e6)
        for call in calls
    )
    return Seen(
        duration_s=report["total"] / 1e9,
        statuses=report["statusCodeDistribution"] or {},
        errors=report["errorDistribution"] or {},
        ended_s=[end for end, _ in ends],
        latency_ms=[latency for _, latency in ends],
    )


def together(parts: Sequence[Seen]) -> Seen:
    """What several ghz saw at the same time, while all of them were under way."""
    begin = max(part.ended_s[0] for part in parts)
    end = min(part.ended_s[-1] for part in parts)
    calls = sorted(
        call
        for part in parts
        for call in zip(part.ended_s, part.latency_ms, strict=True)
        if begin <= call[0] <= end
    )
    return Seen(
        duration_s=max(0.0, end - begin),
        statuses={OK: len(calls)},
        errors={},
        ended_s=[each for each, _ in calls],
        latency_ms=[latency for _, latency in calls],
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of 100 do not exceed (nearest rank); 0.0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def histogram(values_ms: Sequence[float]) -> list[tuple[float, int]]:
    """Upper bounds in milliseconds, each `FACTOR` times the one before, and how many lie below."""
    found = Counter(
        max(0, math.ceil(math.log(value / FIRST_MS, FACTOR))) if value > 0 else 0
        for value in values_ms
    )
    if not found:
        return []
    return [(FIRST_MS * FACTOR**step, found[step]) for step in range(min(found), max(found) + 1)]
