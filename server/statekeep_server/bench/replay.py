"""Replays recorded conversations against a server, and has every single answer judged.

First all saves are sent and their answers noted; only then the oracle judges them, so that its
work is not in the measured durations.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from statekeep import (
    LoadedState,
    NotFound,
    SaveResult,
    ServerInfo,
    ServerStats,
)
from statekeep_server.bench.figures import DatabaseWork, Figures, make_figures
from statekeep_server.bench.oracle import Answer, Difference, Oracle, Rules
from statekeep_server.bench.streams import StreamName, StreamSave, stream
from statekeep_server.bench.trajectories import Trajectory

JSON = "application/json"
OPTIMIZED = "OPTIMIZED"
LOADS_AT_ONCE = 8


class CannotJudge(Exception):
    """The server's rules are of a kind that the oracle does not know."""


class Keeper(Protocol):
    """What a replay needs of a client; `statekeep.AsyncClient` is one."""

    async def save(
        self,
        run_id: str,
        state: bytes,
        *,
        checkpoint_type: Any,
        is_recovery_point: bool,
        request_id: str,
        content_type: str,
    ) -> SaveResult:
        """Save a state."""
        ...

    async def load(self, run_id: str) -> LoadedState[Any]:
        """Load the newest state of a run."""
        ...

    async def server_info(self) -> ServerInfo:
        """Say what the server is."""
        ...

    async def stats(self) -> ServerStats:
        """Say what the server counted."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """One stream, replayed on the path that the server serves.

    Attributes:
        path: STANDARD or OPTIMIZED.
        differences: Every answer that the oracle does not agree with.
        lost_runs: Runs whose newest state is not the last one that had to be kept.
        run_ids: Every run that was written.
    """

    stream: StreamName
    path: str
    figures: Figures
    differences: tuple[Difference, ...]
    lost_runs: tuple[str, ...]
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    run_id: str
    number: int
    trajectory: Trajectory


async def replay_stream(
    client: Keeper,
    name: StreamName,
    trajectories: Sequence[Trajectory],
    *,
    prefix: str,
    concurrency: int,
    on_save: Callable[[], None] = lambda: None,
) -> Replay:
    """Replay one stream of every trajectory, each in a run of its own.

    Args:
        client: Connected to the server.
        name: The stream.
        trajectories: One becomes one run, whose saves follow one another.
        prefix: Begins the id of every run; no run with it may exist.
        concurrency: How many runs are under way at once.
        on_save: Called after every answer.

    Raises:
        StatekeepError: A call failed.
        CannotJudge: The server ignores fields that the oracle cannot ignore.
    """
    info = await client.server_info()
    rules = _rules(info)
    runs = [
        _Run(f"{prefix}-{name}-{number:05}", number, trajectory)
        for number, trajectory in enumerate(trajectories)
    ]
    warm_up = f"{prefix}-{name}-warm-up"
    await _warm_up(client, warm_up)
    before = _work(await client.stats())
    answers = await _save_all(client, name, runs, concurrency, on_save)
    after = _work(await client.stats())
    oracles = [_judge(name, run, answers[run.run_id], rules) for run in runs]
    differences = tuple(each for oracle in oracles for each in oracle.differences)
    lost = await _find_lost(client, runs, oracles)
    figures = make_figures(
        [answer for run in runs for answer in answers[run.run_id]],
        path=info.path,
        work=DatabaseWork(
            after.rows_written - before.rows_written, after.statements - before.statements
        ),
        oracle_differences=len(differences),
        lost=len(lost),
    )
    run_ids = (warm_up, *(run.run_id for run in runs))
    return Replay(name, str(info.path), figures, differences, lost, run_ids)


def _rules(info: ServerInfo) -> Rules:
    """What the server promises, in the oracle's words."""
    rules = info.skip_rules
    deep = [name for name in rules.ignored_fields if name.startswith("/")]
    if deep:
        raise CannotJudge(
            f"the server ignores {deep[0]}, but the oracle knows only names at the top level"
        )
    return Rules(
        skips=info.path == OPTIMIZED,
        ignored_fields=rules.ignored_fields,
        max_skips=rules.max_skips,
        max_skip_age_s=rules.max_skip_age_s,
    )


def _work(stats: ServerStats) -> DatabaseWork:
    """All paths together: what a fallback wrote was written too."""
    return DatabaseWork(
        sum(path.rows_written for path in stats.paths),
        sum(path.statements for path in stats.paths),
    )


async def _warm_up(client: Keeper, run_id: str) -> None:
    """Let the server open its connections and import what it imports late."""
    for number in range(3):
        await client.save(
            run_id,
            b'{"warm": "up"}',
            checkpoint_type="AUTO",
            is_recovery_point=False,
            request_id=f"{run_id}-{number}",
            content_type=JSON,
        )


async def _save_all(
    client: Keeper,
    name: StreamName,
    runs: Sequence[_Run],
    concurrency: int,
    on_save: Callable[[], None],
) -> dict[str, list[Answer]]:
    """Save the streams of all runs, each run in order, some runs at once."""
    answers: dict[str, list[Answer]] = {run.run_id: [] for run in runs}
    waiting = iter(runs)

    async def work(waiting: Iterator[_Run]) -> None:
        for run in waiting:
            saves = stream(name, run.trajectory, run.run_id)
            for number, save in enumerate(saves):
                request_id = f"{run.run_id}-{number}"
                answers[run.run_id].append(await _save(client, run.run_id, save, request_id))
                on_save()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(runs))):
                group.create_task(work(waiting))
    except ExceptionGroup as failed:
        # One reason is enough; the others mostly say the same.
        raise failed.exceptions[0] from None
    return answers


async def _save(client: Keeper, run_id: str, save: StreamSave, request_id: str) -> Answer:
    sent = _encode(save)
    sent_s = time.perf_counter()
    result = await client.save(
        run_id,
        sent,
        checkpoint_type=save.checkpoint_type,
        is_recovery_point=save.is_recovery_point,
        request_id=request_id,
        content_type=JSON,
    )
    return Answer(
        outcome=str(result.outcome),
        reason=str(result.reason),
        path=str(result.path),
        snapshot_id=result.snapshot_id,
        version=result.version or 0,  # none is buffered
        state_sha256=result.state_sha256,
        sent_s=sent_s,
        answered_s=time.perf_counter(),
    )


def _judge(name: StreamName, run: _Run, answers: Sequence[Answer], rules: Rules) -> Oracle:
    """Make the stream again, which is always the same, and judge the answers to it."""
    oracle = Oracle(run.run_id, rules)
    saves = stream(name, run.trajectory, run.run_id)
    for save, answer in zip(saves, answers, strict=True):
        oracle.judge(save, _encode(save), answer)
    return oracle


async def _find_lost(
    client: Keeper, runs: Sequence[_Run], oracles: Sequence[Oracle]
) -> tuple[str, ...]:
    """Load every run; name those that do not hold the last state that had to be kept."""
    at_once = asyncio.Semaphore(LOADS_AT_ONCE)

    async def holds(run: _Run, oracle: Oracle) -> bool:
        async with at_once:
            try:
                loaded = await client.load(run.run_id)
            except NotFound:
                return not oracle.kept_sha256
        return hashlib.sha256(loaded.data).digest() == oracle.kept_sha256

    kept = await asyncio.gather(*map(holds, runs, oracles))
    return tuple(run.run_id for run, held in zip(runs, kept, strict=True) if not held)


def _encode(save: StreamSave) -> bytes:
    return orjson.dumps(save.state)
