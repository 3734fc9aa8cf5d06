"""Pictures of the dashboards, from real numbers: `make dashboard-picture`.

A server on a PostgreSQL of its own serves a steady load, agents of the demo, agents that race for
one run, and one that lets its saves be buffered. Meanwhile a rollout goes from standard, with the
shadow at work, to a half of the runs and to all of them, and a session that forgot to commit keeps
some runs locked for a while. A real Prometheus scrapes the server, and is asked what the dashboards
ask.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import make_url

from statekeep import AsyncClient, StatekeepError
from statekeep_server.bench.server_process import ServerDidNotStart, server_process
from statekeep_server.storage.migrate import migrate
from tools.dashboards.answers import Recording, Window, lines
from tools.dashboards.drawing import Words, draw
from tools.observe.agents import Agents
from tools.observe.processes import Failed, free_port, last_line, running
from tools.private_postgresql import private_postgresql
from tools.private_prometheus import NoPrometheus, private_prometheus

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "deploy" / "grafana" / "dashboards"
PICTURES = ROOT / "docs" / "pictures"
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
DRAWN = ("overview", "saves")

SCENE_S = 60.0
"""How long each of standard, a half, and all with a lock in the middle is served."""
LOCK_S = 4.0
"""Longer than a group waits for a lock, and shorter than standard does: no save fails."""
LOCKED = 20
"""Of the runs of the load. Each save of one waits with a connection of the standard path."""
SCRAPE_S = 1.0
RATE = "10s"
"""Long enough for ten scrapes, short enough to show a change."""
STEP_S = 2.0
SETTLED_S = 12.0
"""From the first save until a rate has seen nothing but load."""
CALLS = 80
"""Begun a second: what two cores serve easily together with all else that runs here."""
LOCK = "select from heads where run_id like 'bench-load-%' order by run_id limit $1 for update"
RUNS = 200
RACERS = 3
RACED_FOR = "raced-for"
RACE_PAUSE_S = 1.0
BUFFERED_PAUSE_S = 0.3
DEMO_STEPS = 60
DEMO_PAUSE_S = 6.0
SUBTITLE = (
    "One server on PostgreSQL. 0:00 standard, with the shadow at work  ·  1:00 half of the runs "
    "optimized  ·  2:00 all of them  ·  2:30 every tenth run locked for {lock:.0f} s"
)


def main() -> int:
    """Record and draw; say what is missing."""
    parser = argparse.ArgumentParser(prog="make dashboard-picture", description=__doc__)
    parser.add_argument("--recording", type=Path, required=True, help="takes what Prometheus said")
    parser.add_argument("--again", action="store_true", help="draw what was recorded before")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="takes the pictures")
    given = parser.parse_args()
    try:
        if not given.again:
            asyncio.run(_record(given.recording))
    except (Failed, NoPrometheus, ServerDidNotStart) as missing:
        print(f"make dashboard-picture: {missing}", file=sys.stderr)
        return 1
    recording = Recording.read(given.recording)
    given.pictures.mkdir(exist_ok=True)
    for name in DRAWN:
        path = given.pictures / f"dashboard-{name}.png"
        board = _board(name)
        words = Words(board["title"], SUBTITLE.format(lock=LOCK_S))
        empty = draw(board, recording, recording.window, words, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        if empty:
            print(f"  without anything to show: {', '.join(empty)}", file=sys.stderr)
    return 0


def _board(name: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((BOARDS / f"{name}.json").read_text(encoding="utf-8"))
    return board


async def _record(path: Path) -> None:
    """Start everything, let it work, and write what Prometheus says about it."""
    with (
        private_postgresql() as postgresql,
        tempfile.TemporaryDirectory(prefix="statekeep-picture-") as name,
    ):
        plain = postgresql.get_uri()
        url = make_url(plain).set(drivername="postgresql+asyncpg")
        dsn = url.render_as_string(hide_password=False)
        await migrate(dsn)
        metrics = free_port()
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                server_process(
                    Path(name),
                    database_url=dsn,
                    optimized=True,
                    arguments=("--metrics-port", str(metrics)),
                )
            )
            prometheus = stack.enter_context(
                private_prometheus([f"127.0.0.1:{metrics}"], rules=RULES, interval_s=SCRAPE_S)
            )
            begin_s = await _scenes(server.target, plain, Path(name))
            window = Window(begin_s, begin_s + 3 * SCENE_S, STEP_S, RATE)
            recording = Recording(window, source=prometheus)
            for board in map(_board, DRAWN):
                _ask_all(board, recording)
    path.parent.mkdir(exist_ok=True)
    recording.write(path)


def _ask_all(board: dict[str, Any], recording: Recording) -> None:
    for panel in board["panels"]:
        if panel["type"] != "row":
            lines(panel, recording, recording.window)


async def _scenes(target: str, postgresql: str, folder: Path) -> float:
    """Let the scenes go by under load; return when the first began."""
    await _statekeep("rollout", "off", "--target", target)
    await _statekeep("flags", "set", "OPTIMIZED_PERSISTENCE_SHADOW", "true", "--target", target)
    async with _load(target, folder):
        await asyncio.sleep(SETTLED_S)
        begin_s = time.time()
        await asyncio.sleep(SCENE_S)
        print("A half of the runs ...", flush=True)
        await _statekeep("rollout", "50%", "--target", target)
        await asyncio.sleep(begin_s + 2 * SCENE_S - time.time())
        print("All of them ...", flush=True)
        await _statekeep("rollout", "on", "--target", target)
        await asyncio.sleep(begin_s + 2.5 * SCENE_S - time.time())
        await _hold_a_lock(postgresql)
        await asyncio.sleep(begin_s + 3 * SCENE_S - time.time())
    return begin_s


@asynccontextmanager
async def _load(target: str, folder: Path) -> AsyncIterator[None]:
    """Load a server for as long as the context lasts."""
    log = folder / "load.log"
    command = (
        *(sys.executable, "-m", "statekeep_server", "bench", "load", "mixed", "--target", target),
        *("--rate", str(CALLS), "--runs", str(RUNS), "--processes", "1"),
        *("--duration", str(SETTLED_S + 4 * SCENE_S)),
    )
    async with (
        running(*command, log=log, variables=os.environ) as process,
        AsyncClient(target, token="") as client,
    ):
        works = [asyncio.create_task(_demo(target, folder))]
        works += [asyncio.create_task(_race(client, number)) for number in range(RACERS)]
        works += [asyncio.create_task(_write_behind(client))]
        try:
            yield
            if process.returncode is not None:
                raise Failed(f"the load ended too early: {last_line(log)}")
        finally:
            for work in works:
                work.cancel()
            ended = await asyncio.gather(*works, return_exceptions=True)
    for end in ended:
        if not isinstance(end, asyncio.CancelledError):
            raise Failed(f"an agent ended too early: {end}")


async def _demo(target: str, folder: Path) -> None:
    """Let agents of the demo come and go."""
    while True:
        await Agents(target, folder).of_the_demo(os.environ, agents=1, steps=DEMO_STEPS)
        await asyncio.sleep(DEMO_PAUSE_S)


async def _race(client: AsyncClient, number: int) -> None:
    """Save a run that others save too: who comes second is refused, and looks again."""
    version = 0
    while True:
        try:
            saved = await client.save(
                RACED_FOR,
                {"winner": number, "after": version},
                checkpoint_type="AUTO",
                expected_version=version,
            )
            version = saved.version or version
        except StatekeepError:
            loaded = await client.load(RACED_FOR)
            version = loaded.version
        await asyncio.sleep(RACE_PAUSE_S)


async def _write_behind(client: AsyncClient) -> None:
    """Save what may be lost, and need not be waited for."""
    step = 0
    while True:
        await client.save("buffered", {"step": step}, checkpoint_type="AUTO", write_behind=True)
        step += 1
        await asyncio.sleep(BUFFERED_PAUSE_S)


async def _hold_a_lock(postgresql: str) -> None:
    connection = await asyncpg.connect(postgresql)
    try:
        async with connection.transaction():
            await connection.execute(LOCK, LOCKED)
            await asyncio.sleep(LOCK_S)
    finally:
        await connection.close()


async def _statekeep(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "statekeep_server"), *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise Failed(f"statekeep {' '.join(arguments)} failed")


if __name__ == "__main__":
    sys.exit(main())
