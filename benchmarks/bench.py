"""What all scenarios share: database, recording, load process, and how a server is measured."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measurements import Measurement, Rounds, latency_values
from benchmarks.postgresql import Postgresql
from benchmarks.processes import CpuMeter, Server, Worker, migrate, statekeep_server, worker

SAVE = "/statekeep.v1.AgentStateService/SaveAgentState"
LOAD = "/statekeep.v1.AgentStateService/LoadAgentState"
STARTED_S = time.monotonic()
ECHO = "/statekeep.bench.Echo/Echo"
TEMPLATE = "statekeep_template"
"""Migrated once, copied often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how often to measure.

    Attributes:
        rounds: Every scenario is measured once in each.
        measure_s: Per contender, concurrency and round.
        scale: Shortens what is counted and not timed: 1 in a full run.
        state_bytes: Of most states.
        rivals: Rivals that need more than the environment of the benchmarks, such as `dapr`.
        only: Names of the scenarios to measure; all if empty.
    """

    rounds: int = 4
    measure_s: float = 1.5
    warm_up_s: float = 0.5
    scale: float = 1.0
    state_bytes: int = 10_240
    rivals: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def is_quick(self) -> bool:
        """Whether it is for a first look only."""
        return self.scale < 1.0

    def scaled(self, number: int, *, least: int = 1) -> int:
        """A count, shortened."""
        return max(least, round(number * self.scale))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A running benchmark.

    Attributes:
        postgresql: None where none could be started.
        missing: Why a contender could not be measured.
        problems: What makes the results doubtful, in sentences.
    """

    plan: Plan
    recording: Path
    folder: Path
    postgresql: Postgresql | None
    loader: Worker
    rounds: Rounds = field(default_factory=Rounds)
    missing: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def note(self, contender: str, concurrency: int, number: int, **values: float) -> None:
        """Keep what was measured elsewhere."""
        self.rounds.add(
            Measurement(
                contender=contender, concurrency=concurrency, round_number=number, values=values
            )
        )

    def lacks(self, why: str, *contenders: str) -> None:
        """Say why contenders cannot be measured, once."""
        new = [name for name in contenders if name not in self.missing]
        if new:
            self.missing.update(dict.fromkeys(new, why))
            say(f"not measured: {', '.join(new)}: {why}")

    def postgres(self) -> Postgresql:
        """The database server. Raises ValueError where there is none."""
        if self.postgresql is None:
            raise ValueError("there is no PostgreSQL")
        return self.postgresql

    def meter(self) -> CpuMeter:
        """A meter of what other programs take from now on.

        Ours are this process with all that it started, and the database server, which is nobody's
        child.
        """
        ours = [os.getpid()]
        if self.postgresql is not None:
            ours.append(self.postgresql.process().pid)
        return CpuMeter(ours)

    @asynccontextmanager
    async def statekeep(
        self, name: str, *, optimized: bool, variables: Mapping[str, str] | None = None
    ) -> AsyncIterator[Server]:
        """A statekeep on a new PostgreSQL database."""
        async with (
            self.database(migrated=True) as url,
            statekeep_server(
                name,
                self.folder,
                database_url=url,
                optimized=optimized,
                variables=variables,
            ) as server,
        ):
            yield server

    @asynccontextmanager
    async def database(self, *, migrated: bool = False) -> AsyncIterator[str]:
        """A PostgreSQL database, empty or with statekeep's tables; yields its URL."""
        like = TEMPLATE if migrated else "template0"
        async with self.postgres().database(like=like) as url:
            yield url

    async def send(self, server: Server, **spec: Any) -> dict[str, Any]:
        """Let the load process send what a specification says; its answer as it came."""
        defaults = {
            "port": server.port,
            "path": SAVE,
            "recording": str(self.recording),
            "duration_s": self.plan.measure_s,
            "warm_up_s": self.plan.warm_up_s,
            "state_bytes": self.plan.state_bytes,
        }
        answer = await self.loader.ask(defaults | spec)
        if answer["errors"]:
            self.problems.append(
                f"{server.name}: {answer['errors']} calls failed, first with {answer['error']}"
            )
        return answer

    async def measure(
        self, contender: str, number: int, server: Server, *, concurrency: int, **spec: Any
    ) -> dict[str, Any]:
        """Load a server, and keep the rate, the durations and the processor time of all sides."""
        meter = self.meter()
        meter.watch(server.pid)
        database = 0
        if self.postgresql is not None and server.database_url.startswith("postgresql"):
            database = self.postgresql.process().pid
            meter.watch(database)
        answer = await self.send(server, concurrency=concurrency, **spec)
        calls = max(1, answer["total"])
        whole_s = self.plan.warm_up_s + answer["elapsed_s"]
        server_s = meter.spent_s(server.pid)
        database_s = meter.spent_s(database) if database else 0.0
        self.note(
            contender,
            concurrency,
            number,
            rate=answer["answered"] / max(1e-9, answer["elapsed_s"]),
            errors=float(answer["errors"]),
            client_cores=answer["cpu_s"] / max(1e-9, answer["elapsed_s"]),
            server_cores=server_s / whole_s,
            database_cores=database_s / whole_s,
            foreign_cores=meter.foreign_cores(),
            server_us=1e6 * server_s / calls,
            database_us=1e6 * database_s / calls,
            **latency_values(answer["latencies_us"]),
        )
        return answer


@asynccontextmanager
async def open_bench(
    plan: Plan, recording: Path, postgresql: Postgresql | None
) -> AsyncIterator[Bench]:
    """Start what all scenarios need."""
    with tempfile.TemporaryDirectory(prefix="statekeep-bench-") as name:
        if postgresql is not None:
            await postgresql.query(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            await migrate(Path(name), postgresql.url_of(TEMPLATE))
        async with AsyncExitStack() as stack:
            loader = await stack.enter_async_context(worker("load", Path(name)))
            yield Bench(
                plan=plan,
                recording=recording,
                folder=Path(name),
                postgresql=postgresql,
                loader=loader,
            )


def say(text: str) -> None:
    """Tell the person who waits, with the minutes and seconds since the start."""
    minutes, seconds = divmod(round(time.monotonic() - STARTED_S), 60)
    sys.stderr.write(f"{minutes:02}:{seconds:02} {text}\n")
    sys.stderr.flush()


def rotated(names: tuple[Any, ...], number: int) -> tuple[Any, ...]:
    """The contenders in the order of a round.

    Every other round goes backwards, and each pair of rounds begins with another one, so that
    nobody always runs after the same rival, whose pages the database may still be writing.
    """
    at = number // 2 % len(names)
    order = names[at:] + names[:at]
    return order if number % 2 == 0 else order[::-1]


async def run_program(*command: str, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed. Raises OSError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "PGCONNECT_TIMEOUT": "10"},
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise OSError(f"{Path(command[0]).name}: {errors.decode(errors='replace').strip()[-300:]}")
    return out.decode()
