"""A whole benchmark: both streams on both paths, each path on a server of its own."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statekeep import AsyncClient
from statekeep_server.bench.figures import Figures, compare
from statekeep_server.bench.oracle import Difference
from statekeep_server.bench.replay import Replay, replay_stream
from statekeep_server.bench.server_process import server_process
from statekeep_server.bench.streams import StreamName, count_saves
from statekeep_server.bench.trajectories import Trajectory

PATHS = ("standard", "optimized")
LONG_S = 86_400
"""A private server's `max_skip_age`: no benchmark runs as long, so no save is kept for its age."""

OnStage = Callable[[str, int], None]
"""Told what is replayed now, and how many saves it has."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a benchmark found.

    Attributes:
        figures: By stream and path, in lower case.
        messages: How many messages the trajectories have together.
    """

    trajectories: int
    messages: int
    figures: dict[str, dict[str, Figures]]
    differences: tuple[Difference, ...]
    lost_runs: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether every answer was right and nothing was lost."""
        return not self.differences and not self.lost_runs

    def comparison(self) -> dict[str, dict[str, float]]:
        """By stream, how much less the optimized path does; empty unless both were replayed."""
        return {
            name: compare(paths["standard"], paths["optimized"])
            for name, paths in self.figures.items()
            if len(paths) == len(PATHS)
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "trajectories": self.trajectories,
            "messages": self.messages,
            "streams": {
                name: {path: figures.to_json() for path, figures in paths.items()}
                for name, paths in self.figures.items()
            },
            "comparison": self.comparison(),
            "oracle_differences": len(self.differences),
            "lost": len(self.lost_runs),
        }


async def replay_privately(
    trajectories: Sequence[Trajectory],
    folder: Path,
    *,
    database_url: str | None,
    concurrency: int,
    on_stage: OnStage,
    on_save: Callable[[], None],
) -> Campaign:
    """Replay on private servers, one process per path.

    Args:
        trajectories: What to replay.
        folder: Takes the servers' files; also their SQLite databases unless `database_url` names
            a database, which both then use.
        database_url: Of a database with the right schema; what is written there is deleted again.
        concurrency: Runs under way at once.
        on_stage: Called before each stream.
        on_save: Called after each save.

    Raises:
        ServerDidNotStart, StatekeepError, CannotJudge
    """
    replays: list[Replay] = []
    for path in PATHS:
        own = folder / path
        own.mkdir()
        url = database_url or f"sqlite+aiosqlite:///{own / 'statekeep.db'}"
        async with (
            server_process(
                own,
                database_url=url,
                optimized=path == "optimized",
                arguments=("--max-skip-age", str(LONG_S)),
            ) as server,
            AsyncClient(server.target, token="") as client,
        ):
            replays += await _both_streams(client, trajectories, concurrency, on_stage, on_save)
            if database_url:
                await _delete(client, replays[-len(StreamName) :])
    return _campaign(trajectories, replays)


async def replay_on_target(
    client: AsyncClient,
    trajectories: Sequence[Trajectory],
    *,
    concurrency: int,
    on_stage: OnStage,
    on_save: Callable[[], None],
) -> Campaign:
    """Replay on a running server, on the one path that it serves; clean up afterwards.

    Raises StatekeepError and CannotJudge.
    """
    replays = await _both_streams(client, trajectories, concurrency, on_stage, on_save)
    await _delete(client, replays)
    return _campaign(trajectories, replays)


async def _both_streams(
    client: AsyncClient,
    trajectories: Sequence[Trajectory],
    concurrency: int,
    on_stage: OnStage,
    on_save: Callable[[], None],
) -> list[Replay]:
    prefix = f"replay-{uuid.uuid4().hex[:12]}"
    path = str((await client.server_info()).path).lower()
    replays = []
    for name in StreamName:
        saves = sum(count_saves(name, trajectory) for trajectory in trajectories)
        on_stage(f"{name}, {path}", saves)
        replays.append(
            await replay_stream(
                client,
                name,
                trajectories,
                prefix=prefix,
                concurrency=concurrency,
                on_save=on_save,
            )
        )
    return replays


async def _delete(client: AsyncClient, replays: Sequence[Replay]) -> None:
    for replay in replays:
        for run_id in replay.run_ids:
            await client.delete_run(run_id)


def _campaign(trajectories: Sequence[Trajectory], replays: Sequence[Replay]) -> Campaign:
    figures: dict[str, dict[str, Figures]] = {str(name): {} for name in StreamName}
    for replay in replays:
        figures[str(replay.stream)][replay.path.lower()] = replay.figures
    return Campaign(
        trajectories=len(trajectories),
        messages=sum(len(trajectory.messages) for trajectory in trajectories),
        figures=figures,
        differences=tuple(each for replay in replays for each in replay.differences),
        lost_runs=tuple(each for replay in replays for each in replay.lost_runs),
    )
