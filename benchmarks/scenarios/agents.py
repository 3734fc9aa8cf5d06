"""Both paths at the work of agents: the `around` stream, and the demo's agent from end to end."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import orjson

from benchmarks.bench import Bench, rotated
from benchmarks.load import write_script
from benchmarks.processes import Server
from benchmarks.scenarios import MeasureRound
from benchmarks.states import save_request
from statekeep import AsyncClient, CheckpointType
from statekeep.v1 import agent_state_pb2
from statekeep_server.bench.agent import Agent
from statekeep_server.bench.streams import Checkpoints, StreamName, StreamSave, stream
from statekeep_server.bench.trajectories import Trajectory, read_trajectories

AGENTS = (1, 16)
CONVERSATIONS = {1: 6, 16: 32}
"""How many conversations the agents have together, in each round: about 350 and 1,900 saves."""
DEMO_STEPS = 40
DEMO_AGENTS = 3
PATHS = ("optimized", "standard")


@asynccontextmanager
async def open_agents(bench: Bench) -> AsyncIterator[MeasureRound]:
    """Start a server for each path."""
    trajectories = read_trajectories(bench.recording)
    async with (
        bench.statekeep("around_optimized", optimized=True) as optimized,
        bench.statekeep("around_standard", optimized=False) as standard,
    ):
        servers = {"optimized": optimized, "standard": standard}
        for server in servers.values():
            await bench.send(server, kind="prepare", concurrency=16, prefix="warm", runs=64)
        yield partial(_measure, bench, servers, trajectories)


async def _measure(
    bench: Bench, servers: dict[str, Server], trajectories: Sequence[Trajectory], number: int
) -> None:
    for agents in AGENTS:
        wanted = bench.plan.scaled(CONVERSATIONS[agents], least=agents)
        chosen = [trajectories[(number * wanted + i) % len(trajectories)] for i in range(wanted)]
        script = bench.folder / f"around-{agents}.script"
        write_script(script, _script(chosen, agents, f"around{number}-{agents}"))
        for path in rotated(PATHS, number):
            await _replay(bench, servers[path], path, agents, str(script), number)
    for path in rotated(PATHS, number):
        await _demo_agents(bench, servers[path], path, number)


def _script(trajectories: Sequence[Trajectory], agents: int, prefix: str) -> list[list[bytes]]:
    """What each agent sends: its conversations one after another, each a run of its own."""
    bodies: list[list[bytes]] = [[] for _ in range(agents)]
    for number, trajectory in enumerate(trajectories):
        run_id = f"{prefix}-{number}"
        bodies[number % agents] += [
            save_request(
                run_id,
                orjson.dumps(save.state),
                request_id=f"{run_id}-{save_number}",
                checkpoint_type=agent_state_pb2.CheckpointType.Value(
                    f"CHECKPOINT_TYPE_{save.checkpoint_type}"
                ),
                is_recovery_point=save.is_recovery_point,
            )
            for save_number, save in enumerate(stream(StreamName.AROUND, trajectory, run_id))
        ]
    return bodies


async def _replay(
    bench: Bench, server: Server, path: str, agents: int, script: str, number: int
) -> None:
    async with AsyncClient(server.target, token="") as client:
        before = (await client.stats()).cache
        await bench.measure(
            f"around_{path}",
            number,
            server,
            concurrency=agents,
            kind="script",
            prefix="",
            script=script,
        )
        after = (await client.stats()).cache
    right = after.routes_right - before.routes_right
    wrong = after.routes_wrong - before.routes_wrong
    if path == "optimized" and right + wrong:
        bench.note("around_optimized", agents, number, routes_right=right / (right + wrong))


async def _demo_agents(bench: Bench, server: Server, path: str, number: int) -> None:
    """Let the demo's agent work to its end, checkpointing around every step."""
    steps = bench.plan.scaled(DEMO_STEPS, least=8)
    async with AsyncClient(server.target, token="") as client:
        meter = bench.meter()
        durations_us = []
        for seed in range(DEMO_AGENTS):
            began_s = time.perf_counter()
            await _work(client, f"demo{number}-{seed}", seed=1 + 10 * number + seed, steps=steps)
            durations_us.append((time.perf_counter() - began_s) * 1e6)
    mean_us = sum(durations_us) / len(durations_us)
    bench.note(f"agent_{path}", 1, number, mean_us=mean_us, foreign_cores=meter.foreign_cores())


async def _work(client: AsyncClient, run_id: str, *, seed: int, steps: int) -> None:
    agent = Agent.start(seed=seed, steps=steps)
    checkpoints = Checkpoints(run_id, _now)

    async def keep(save: StreamSave) -> None:
        await client.save(
            run_id,
            save.state,
            checkpoint_type=CheckpointType(save.checkpoint_type),
            is_recovery_point=save.is_recovery_point,
        )

    while not agent.done:
        body, role = agent.state(), agent.next_role()
        role_before = agent.messages[-1]["role"] if agent.messages else None
        for save in checkpoints.before(body, role_before=role_before, role=role):
            await keep(save)
        agent.step()
        await keep(checkpoints.after(agent.state()))
    for save in checkpoints.end(agent.state()):
        await keep(save)


def _now() -> datetime:
    return datetime.now(UTC)
