"""The demo: an agent whose server and process are killed halfway, and the proof of what was kept.

Server and agent are processes of their own. When half of the saves are acknowledged, both get
SIGKILL. A new server opens the same database, a new agent resumes from what it loads, and finishes.
Then this process, which saw neither from inside, compares the agent's journal with the database
and the final answer with that of an agent that was never interrupted.
"""

import asyncio
import hashlib
import signal
import sys
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from statekeep import AsyncClient, NotFound
from statekeep_server.bench.agent import Agent
from statekeep_server.bench.journal import (
    Acknowledgement,
    Journal,
    count_acknowledged,
    read_journal,
)
from statekeep_server.bench.server_process import server_process
from statekeep_server.bench.streams import StreamName, count_saves
from statekeep_server.bench.trajectories import Trajectory
from statekeep_server.bench.worker import messages_sha256

POLL_S = 0.01
AGENT_TIMEOUT_S = 120.0


class AgentFailed(Exception):
    """The agent ended before its work was done. The text is the last line that it wrote."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim, whether it holds, and what was looked at."""

    claim: str
    holds: bool
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the demo saw.

    Attributes:
        asked: Saves that the agent asked for in both of its lives.
        rows_written_per_save: As the second server counted.
        rows_avoided: Rows that the skipped saves would have written.
        lost: Acknowledged saves that cannot be loaded as they were acknowledged.
    """

    run_id: str
    steps: int
    killed_at_step: int
    asked: int
    acknowledged: int
    persisted: int
    skipped: int
    skipped_percent: float
    rows_written_per_save: float
    rows_avoided: int
    persisted_mean_ms: float
    skipped_mean_ms: float
    lost: int
    answer: str
    proofs: tuple[Proof, ...]

    @property
    def good(self) -> bool:
        """Whether every claim holds."""
        return all(proof.holds for proof in self.proofs)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {**asdict(self), "good": self.good}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Told how the demo goes on: what happens now, and how many saves of all are acknowledged."""

    stage: Callable[[str], None]
    acknowledged: Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is run, and what must come out."""

    folder: Path
    run_id: str
    seed: int
    steps: int
    saves: int
    answer: str
    messages_sha256: str

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.run_id}.journal"

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.folder / 'statekeep.db'}"


async def run_demo(folder: Path, *, seed: int, steps: int, watcher: Watcher) -> DemoReport:
    """Run the demo in a folder, which keeps the database, the journal and the logs.

    Raises:
        ServerDidNotStart: A server did not come up.
        AgentFailed: An agent ended too early.
        StatekeepError: The proof could not ask the server.
    """
    plan = _plan(folder, seed=seed, steps=steps)
    watcher.stage("The agent works; server and agent will be killed halfway.")
    await _first_life(plan, watcher)
    killed = read_journal(plan.journal)
    watcher.stage(
        f"SIGKILL to both, after {len(killed.acknowledged)} acknowledged saves. A new server "
        "starts, and a new agent resumes."
    )
    async with _server(plan) as target:
        async with _agent(plan, target) as process:
            await _watch(process, plan, watcher, until=None)
        watcher.stage("The agent finished. Is everything there that was acknowledged?")
        async with AsyncClient(target, token="") as client:
            return await _report(client, plan, killed, read_journal(plan.journal))


def _plan(folder: Path, *, seed: int, steps: int) -> _Plan:
    """Let an agent work in this process, without any server, to know what must come out."""
    agent = Agent.start(seed=seed, steps=steps)
    while not agent.done:
        agent.step()
    work = Trajectory("", agent.reward, tuple(agent.messages))
    return _Plan(
        folder=folder.absolute(),
        run_id=f"demo-{uuid.uuid4().hex[:8]}",
        seed=seed,
        steps=steps,
        saves=count_saves(StreamName.AROUND, work),
        answer=agent.answer,
        messages_sha256=messages_sha256(agent.messages),
    )


async def _first_life(plan: _Plan, watcher: Watcher) -> None:
    async with (
        server_process(plan.folder, database_url=plan.database_url, optimized=True) as server,
        _agent(plan, server.target) as process,
    ):
        await _watch(process, plan, watcher, until=plan.saves // 2)
        process.send_signal(signal.SIGKILL)
        await server.kill()


@asynccontextmanager
async def _server(plan: _Plan) -> AsyncIterator[str]:
    async with server_process(
        plan.folder, database_url=plan.database_url, optimized=True
    ) as server:
        yield server.target


@asynccontextmanager
async def _agent(plan: _Plan, target: str) -> AsyncIterator[Process]:
    """Start the agent, and make sure that it does not outlive the context."""
    with (plan.folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "statekeep_server.bench.worker",
            f"--target={target}",
            f"--run={plan.run_id}",
            f"--journal={plan.journal}",
            f"--seed={plan.seed}",
            f"--steps={plan.steps}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.shield(process.wait())


async def _watch(process: Process, plan: _Plan, watcher: Watcher, *, until: int | None) -> None:
    """Follow the agent's journal up to so many acknowledgements, or to the end of its work."""
    async with asyncio.timeout(AGENT_TIMEOUT_S):
        while True:
            ended = process.returncode is not None
            acknowledged = count_acknowledged(plan.journal)
            watcher.acknowledged(acknowledged, plan.saves)
            if until is not None and acknowledged >= until:
                return
            if ended and until is None and process.returncode == 0:
                return
            if ended:
                raise AgentFailed(_last_line(plan.folder / "agent.log"))
            await asyncio.sleep(POLL_S)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the agent ended without a word"


async def _report(
    client: AsyncClient, plan: _Plan, killed: Journal, journal: Journal
) -> DemoReport:
    lost = await _find_lost(client, plan.run_id, journal)
    persisted = [each for each in journal.acknowledged if each.outcome == "PERSISTED"]
    skipped = [each for each in journal.acknowledged if each.outcome == "SKIPPED"]
    stats = await client.stats()
    rows = sum(path.rows_written for path in stats.paths)
    rows_per_save = rows / max(1, sum(path.persisted for path in stats.paths))
    return DemoReport(
        run_id=plan.run_id,
        steps=plan.steps,
        killed_at_step=journal.began_at[-1][0],
        asked=len(journal.asked),
        acknowledged=len(journal.acknowledged),
        persisted=len(persisted),
        skipped=len(skipped),
        skipped_percent=100 * len(skipped) / len(journal.acknowledged),
        rows_written_per_save=rows_per_save,
        rows_avoided=round(rows_per_save * len(skipped)),
        persisted_mean_ms=_mean_ms(persisted),
        skipped_mean_ms=_mean_ms(skipped),
        lost=len(lost),
        answer=journal.answer or "",
        proofs=await _prove(client, plan, killed, journal, lost),
    )


async def _find_lost(client: AsyncClient, run_id: str, journal: Journal) -> list[Acknowledgement]:
    """Load the version of every acknowledgement; a skipped save names one that stands."""
    loaded: dict[int, tuple[str, str]] = {}
    for version in {each.version for each in journal.acknowledged}:
        try:
            found = await client.load(run_id, version=version)
        except NotFound:
            continue
        loaded[version] = (found.snapshot_id, hashlib.sha256(found.data).hexdigest())
    return [
        each
        for each in journal.acknowledged
        if loaded.get(each.version) != (each.snapshot_id, each.state_sha256)
    ]


async def _prove(
    client: AsyncClient,
    plan: _Plan,
    killed: Journal,
    journal: Journal,
    lost: list[Acknowledgement],
) -> tuple[Proof, ...]:
    newest = await client.load(plan.run_id)
    stored = [each.version async for each in client.list_snapshots(plan.run_id, page_size=1_000)]
    acknowledged = {each.version for each in journal.acknowledged if each.outcome == "PERSISTED"}
    last_acknowledged = max(each.version for each in killed.acknowledged)
    resumed_from = journal.began_at[-1][1]
    unexpected = len(set(stored) - acknowledged)
    return (
        Proof(
            "nothing acknowledged was lost",
            not lost,
            f"{len(journal.acknowledged)} acknowledgements, each loaded and compared by SHA-256: "
            f"{len(lost)} missing",
        ),
        Proof(
            "the agent resumed from the last acknowledged state or a newer one",
            len(journal.began_at) == 2 and resumed_from >= last_acknowledged,
            f"acknowledged before the kill: version {last_acknowledged}; resumed from version "
            f"{resumed_from}",
        ),
        Proof(
            "nothing was stored that nobody asked for",
            unexpected <= len(journal.unanswered),
            f"{len(stored)} snapshots, {len(acknowledged)} of them acknowledged; "
            f"unanswered at the kill: {len(journal.unanswered)}",
        ),
        Proof(
            "the final answer is that of an agent that was never interrupted",
            (journal.answer, journal.messages_sha256) == (plan.answer, plan.messages_sha256),
            f"{plan.steps} messages, SHA-256 {plan.messages_sha256[:16]}…",
        ),
        Proof(
            "the final state can be loaded",
            messages_sha256(newest.state["messages"]) == plan.messages_sha256,
            f"version {newest.version}, {len(newest.data):,} bytes",
        ),
    )


def _mean_ms(acknowledgements: list[Acknowledgement]) -> float:
    durations = [each.duration_ms for each in acknowledgements]
    return sum(durations) / len(durations) if durations else 0.0
