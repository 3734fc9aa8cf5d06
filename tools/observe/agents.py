"""Agents that work at a server: those in Go, and the demo's own."""

import asyncio
import re
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.observe.processes import Failed, last_line, running, together

WORK_TIMEOUT_S = 120.0
SAVED = re.compile(
    r"run=(?P<run>\S+) step=\d+ outcome=SAVE_OUTCOME_(?P<outcome>\w+) version=\d+ "
    r"trace=(?P<trace_id>[0-9a-f]{32})"
)
"""A line of the agents in Go (examples/go-agent)."""


@dataclass(frozen=True, slots=True)
class Save:
    """An acknowledged save of an agent in Go."""

    run: str
    outcome: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Agents:
    """Starts agents.

    Attributes:
        target: The server.
        folder: Takes what they print.
    """

    target: str
    folder: Path

    async def in_go(
        self, program: Path, variables: Mapping[str, str], *, agents: int, steps: int, pause: str
    ) -> list[Save]:
        """Let agents in Go work to their end; return their saves.

        Raises:
            Failed: They failed.
        """
        name = f"go-{uuid.uuid4().hex[:6]}"
        log = self.folder / f"{name}.log"
        work = (f"-agents={agents}", f"-steps={steps}", f"-pause={pause}")
        await self._work(
            *("the Go agents", program, f"-target={self.target}", f"-run={name}", *work),
            log=log,
            variables=variables,
        )
        return [
            Save(found["run"], found["outcome"], found["trace_id"])
            for found in map(SAVED.fullmatch, log.read_text().splitlines())
            if found
        ]

    async def of_the_demo(self, variables: Mapping[str, str], *, agents: int, steps: int) -> None:
        """Let agents of the demo work to their end, all at once.

        Raises:
            Failed: One failed.
        """
        await together(*(self._of_the_demo(variables, seed, steps) for seed in range(agents)))

    async def _of_the_demo(self, variables: Mapping[str, str], seed: int, steps: int) -> None:
        run = f"demo-{uuid.uuid4().hex[:6]}"
        work = (f"--journal={self.folder / run}.journal", f"--seed={seed}", f"--steps={steps}")
        await self._work(
            *("the demo agent", sys.executable, "-m", "statekeep_server.bench.worker"),
            *(f"--target={self.target}", f"--run={run}", *work),
            log=self.folder / f"{run}.log",
            variables=variables,
        )

    async def _work(
        self, who: str, *command: str | Path, log: Path, variables: Mapping[str, str]
    ) -> None:
        async with running(*command, log=log, variables=variables) as process:
            try:
                async with asyncio.timeout(WORK_TIMEOUT_S):
                    code = await process.wait()
            except TimeoutError:
                raise Failed(f"{who} took more than {WORK_TIMEOUT_S:.0f} s") from None
        if code:
            raise Failed(f"{who} failed: {last_line(log)}")
