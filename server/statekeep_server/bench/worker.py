"""The demo's agent as a program: works, checkpoints around every step, and can be killed.

    python -m statekeep_server.bench.worker --target HOST:PORT --run ID --journal FILE …

It begins with what the server has of its run: nothing, or the state to go on from.
"""

import argparse
import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from statekeep import AsyncClient, CheckpointType, NotFound
from statekeep_server.bench.agent import Agent
from statekeep_server.bench.journal import Acknowledgement, JournalWriter, open_journal
from statekeep_server.bench.streams import Checkpoints, StreamSave


def main() -> None:
    """Run the agent of this process to the end of its work."""
    parser = argparse.ArgumentParser(description="the demo's agent")
    parser.add_argument("--target", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--journal", required=True, type=Path)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--steps", required=True, type=int)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> None:
    async with AsyncClient(arguments.target, token="") as client:
        with open_journal(arguments.journal) as journal:
            await work(client, journal, arguments.run, seed=arguments.seed, steps=arguments.steps)


async def work(
    client: AsyncClient, journal: JournalWriter, run_id: str, *, seed: int, steps: int
) -> None:
    """Begin or resume the work of a run and finish it. Raises StatekeepError."""
    try:
        loaded = await client.load(run_id)
    except NotFound:
        agent, heartbeat_count, version = Agent.start(seed=seed, steps=steps), 0, 0
    else:
        agent = Agent.resume(loaded.state)
        heartbeat_count, version = loaded.state["heartbeat_count"], loaded.version
    journal.began(step=len(agent.messages), version=version)
    keeper = _Keeper(client, journal, run_id)
    checkpoints = Checkpoints(run_id, _now, heartbeat_count=heartbeat_count)
    while not agent.done:
        body, role = agent.state(), agent.next_role()
        role_before = agent.messages[-1]["role"] if agent.messages else None
        for save in checkpoints.before(body, role_before=role_before, role=role):
            await keeper.keep(save)
        agent.step()
        await keeper.keep(checkpoints.after(agent.state()))
    for save in checkpoints.end(agent.state()):
        await keeper.keep(save)
    journal.finished(answer=agent.answer, messages_sha256=messages_sha256(agent.messages))


def messages_sha256(messages: Sequence[Any]) -> str:
    """The SHA-256 of a conversation, hexadecimal."""
    return hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()


class _Keeper:
    """Saves, and notes in the journal what was asked and what was answered."""

    def __init__(self, client: AsyncClient, journal: JournalWriter, run_id: str) -> None:
        self._client = client
        self._journal = journal
        self._run_id = run_id
        self._life = uuid.uuid4().hex[:8]  # two lives of an agent ask for different saves
        self._asked = 0

    async def keep(self, save: StreamSave) -> None:
        self._asked += 1
        request_id = f"{self._life}-{self._asked}"
        self._journal.asked(request_id)
        began_s = time.perf_counter()
        result = await self._client.save(
            self._run_id,
            save.state,
            checkpoint_type=CheckpointType(save.checkpoint_type),
            is_recovery_point=save.is_recovery_point,
            request_id=request_id,
        )
        self._journal.acknowledged(
            Acknowledgement(
                request_id=request_id,
                outcome=str(result.outcome),
                reason=str(result.reason),
                version=result.version or 0,  # none is buffered
                snapshot_id=result.snapshot_id,
                state_sha256=result.state_sha256.hex(),
                duration_ms=1_000 * (time.perf_counter() - began_s),
            )
        )


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
