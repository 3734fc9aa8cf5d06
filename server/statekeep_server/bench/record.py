"""Records the demo agent's own work in the format of `trajectories`."""

from collections.abc import Iterator

from statekeep_server.bench.agent import Agent
from statekeep_server.bench.trajectories import Trajectory


def record(*, runs: int, steps: int, seed: int) -> Iterator[Trajectory]:
    """Let `runs` agents work `steps` steps each; equal arguments give equal conversations."""
    for number in range(runs):
        agent = Agent.start(seed=seed + number, steps=steps)
        while not agent.done:
            agent.step()
        yield Trajectory(
            trajectory_id=f"tour-{seed + number}-{steps}",
            reward=agent.reward,
            messages=tuple(agent.messages),
        )
