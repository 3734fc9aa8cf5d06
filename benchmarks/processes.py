"""Servers and workers as processes of their own, and what processor time they take."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("STATEKEEP_", "OTEL_", "OPTIMIZED_PERSISTENCE_", "ENABLE_OPTIMIZED_", "LOG_LEVEL")
"""Begin the names of variables that a server reads."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
COMMAND = (sys.executable, "-m", "statekeep_server")
NOT_FOREIGN = ("idle", "iowait", "guest", "guest_nice", "irq", "softirq")
"""What guests take is in `user` already. Interrupts are served for whoever runs: on loopback they
are mostly the network of the benchmark itself."""
LINE_BYTES = 1 << 28
"""Workers answer with every single latency in one line."""


class DidNotStart(Exception):
    """A server or worker ended before it answered. The text is what it said last."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on loopback.

    Attributes:
        database_url: Where it keeps its rows; empty for an echo.
    """

    name: str
    port: int
    pid: int
    database_url: str = ""

    @property
    def target(self) -> str:
        """Its address for clients."""
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def statekeep_server(
    name: str,
    folder: Path,
    *,
    database_url: str,
    optimized: bool,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """Start statekeep as its users do, by its command.

    Args:
        name: Of the contender.
        folder: Takes its port and log.
        database_url: Of a migrated database, or a SQLite file. Goes through the environment, where
            no list of processes shows it.
        optimized: The path.
        variables: More variables for it.

    Raises DidNotStart.
    """
    environment = {
        **_environment(),
        "STATEKEEP_DATABASE_URL": database_url,
        "ENABLE_OPTIMIZED_PERSISTENCE": "true" if optimized else "false",
        **(variables or {}),
    }
    log_path, port_path = folder / f"{name}.log", folder / f"{name}.port"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            "serve",
            *("--port", "0", "--port-file", str(port_path)),
            # No benchmark lasts as long, so no save is kept for its age.
            *("--max-skip-age", "86400", "--max-skips", "999999999"),
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the benchmark, which stops its servers
        )
    try:
        port = await _read_port(process, port_path, log_path)
        yield Server(name, port, process.pid, database_url)
    finally:
        port_path.unlink(missing_ok=True)
        await asyncio.shield(_end(process))


async def migrate(folder: Path, database_url: str) -> None:
    """Bring a database's schema up to date. Raises DidNotStart."""
    log_path = folder / "migrate.log"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            "migrate",
            stdout=log,
            stderr=log,
            env=_environment() | {"STATEKEEP_DATABASE_URL": database_url},
        )
        if await process.wait():
            raise DidNotStart(_last_line(log_path))


def _environment() -> dict[str, str]:
    """This process's variables without the settings of a server that may be meant for others.

    The level of the log is the default one too: what a server says is a part of what it costs.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}


@asynccontextmanager
async def rival_server(kind: str, folder: Path, *, database_url: str = "") -> AsyncIterator[Server]:
    """Start a rival behind the same gRPC front, by its kind there. Raises DidNotStart."""
    log_path = folder / f"{kind}.log"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.rivals.front", kind),
            stdout=PIPE,
            stderr=log,
            env={**os.environ, "BENCH_DATABASE_URL": database_url},
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await _pipe(process.stdout).readline()
        if not line:
            raise DidNotStart(_last_line(log_path))
        yield Server(kind, int(line), process.pid, database_url)
    finally:
        await asyncio.shield(_end(process))


class Worker:
    """A module that answers each line of JSON with one line of JSON."""

    def __init__(self, process: Process, log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask and wait for the answer. Raises DidNotStart if it ends instead."""
        questions = _pipe(self._process.stdin)
        questions.write(orjson.dumps(question) + b"\n")
        with suppress(ConnectionError):  # then its answer is missing too
            await questions.drain()
        answer: dict[str, Any] = orjson.loads(await self.read())
        return answer

    async def read(self) -> bytes:
        """What it says next. Raises DidNotStart if it ends instead."""
        line: bytes = await _pipe(self._process.stdout).readline()
        if not line:
            raise DidNotStart(_last_line(self._log_path))
        return line


@asynccontextmanager
async def worker(module: str, folder: Path) -> AsyncIterator[Worker]:
    """Start a module of this folder as a worker; it ends with the context."""
    log_path = folder / f"{module}.log"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"benchmarks.{module}"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            cwd=ROOT,
            limit=LINE_BYTES,
            start_new_session=True,
        )
    try:
        yield Worker(process, log_path)
    finally:
        await asyncio.shield(_end(process))


class CpuMeter:
    """The processor time of some process trees, and of all programs that are not ours.

    Args:
        ours: The roots of all process trees of the benchmark.
    """

    def __init__(self, ours: Sequence[int] = ()) -> None:
        self._before: dict[int, float] = {}
        self._trees: dict[int, psutil.Process] = {}
        self._ours = tuple(ours)
        for pid in self._ours:
            self.watch(pid)
        self._before_busy_s = _busy_s()
        self._began_s = time.perf_counter()

    def watch(self, pid: int) -> None:
        """Begin to measure the tree of a process."""
        self._trees[pid] = psutil.Process(pid)
        self._before[pid] = tree_s(self._trees[pid])

    def spent_s(self, pid: int) -> float:
        """What the tree has taken since it is watched, in seconds of one core."""
        return tree_s(self._trees[pid]) - self._before[pid]

    def foreign_cores(self) -> float:
        """How many cores other programs have taken since this meter was made."""
        elapsed_s = time.perf_counter() - self._began_s
        foreign_s = _busy_s() - self._before_busy_s - sum(map(self.spent_s, self._ours))
        return max(0.0, foreign_s) / max(1e-9, elapsed_s)


def tree_s(process: psutil.Process) -> float:
    """The processor time of a process, its living descendants and those that have ended."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _busy_s() -> float:
    times: dict[str, float] = psutil.cpu_times()._asdict()
    return sum(value for name, value in times.items() if name not in NOT_FOREIGN)


def _pipe(end: Any) -> Any:
    """One end of a process, which is a pipe because it was started with one."""
    if end is None:
        raise ValueError("the process was started without this pipe")
    return end


async def _read_port(process: Process, port_path: Path, log_path: Path) -> int:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while (port := _port_in(port_path)) is None:
                if process.returncode is not None:
                    raise DidNotStart(_last_line(log_path))
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise DidNotStart(f"no answer in {START_TIMEOUT_S:.0f} s") from None
    return port


def _port_in(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").strip().splitlines()
    # A traceback of a group ends with a frame of dashes.
    said = [line.strip(" |") for line in lines if not set(line) <= set(" |+-")]
    return said[-1] if said else "it said nothing"


async def _end(process: Process) -> None:
    """Ask a process to stop; one that takes too long is killed."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
