"""Workers are started, kept alive and stopped together. The workers here are tiny scripts."""

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from statekeep_server.config import Settings
from statekeep_server.supervisor.port import CannotSupervise
from statekeep_server.supervisor.supervise import (
    Backoff,
    Stopped,
    WorkersFailed,
    check_workers,
    run_workers,
)

QUICK = Backoff(first_s=0.01, longest_s=0.04)

# Reads its order, leaves a mark of its life, and then does what a test wants.
START = """
import os, pickle, signal, sys, time
from pathlib import Path
order = pickle.load(sys.stdin.buffer)
folder, index = Path(sys.argv[1]), order.worker.index
def ready(): print('{"ready": true}', flush=True)
def until_told(): sys.stdin.buffer.read()
lives = len(list(folder.glob(f"{index}-*")))
(folder / f"{index}-{lives}").write_text(f"{os.getpid()} {order.settings.port}")
"""
SERVE = "ready(); until_told()"


class Workers:
    """Runs two workers of a script until the test says that they are to stop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: list[int] = []

    def lives(self, index: int) -> list[int]:
        """The process ids that a worker has had."""
        files = sorted(self.folder.glob(f"{index}-*"))
        return [int(found.split()[0]) for path in files if (found := path.read_text())]

    async def run(
        self, script: str, then: Callable[[], bool] = lambda: True, backoff: Backoff = QUICK
    ) -> Stopped:
        settings = Settings(database_url="postgresql://db/x", port=0, workers=2)
        command = (sys.executable, "-c", START + script, str(self.folder))
        running = asyncio.create_task(
            run_workers(
                settings,
                command=command,
                log_level="INFO",
                log_format="text",
                on_ready=self.ports.append,
                backoff=backoff,
            )
        )
        async with asyncio.timeout(30):
            while not running.done() and not (self.ports and then()):
                await asyncio.sleep(0.005)
            if not running.done():
                os.kill(os.getpid(), signal.SIGTERM)
            return await running


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


def gone(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


async def test_all_serve_on_one_port_and_drain_together(workers: Workers) -> None:
    stopped = await workers.run(SERVE + '; (folder / f"drained-{index}").touch()')
    assert stopped is Stopped.DRAINED
    assert len(workers.ports) == 1
    marks = [(workers.folder / f"{index}-0").read_text().split() for index in (0, 1)]
    assert {int(port) for _, port in marks} == set(workers.ports)
    assert len(list(workers.folder.glob("drained-*"))) == 2


async def test_a_worker_that_crashes_is_started_again_and_rests_longer_each_time(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "statekeep.supervisor")
    crash = (
        "ready()\nif index == 1 and lives < 4: os.kill(os.getpid(), signal.SIGKILL)\nuntil_told()"
    )

    def fifth_life_serves() -> bool:
        # A life that ends as soon as it is ready may be over before anybody says that it serves.
        return len(workers.lives(1)) == 5 and caplog.messages[-1] == "Worker 1 serves again"

    stopped = await workers.run(crash, fifth_life_serves)
    assert stopped is Stopped.DRAINED
    assert (len(workers.lives(0)), len(workers.lives(1))) == (1, 5)
    rests = [found[1] for line in caplog.messages if (found := re.search(r"in (\S+) s", line))]
    assert len(rests) == 4
    assert "Worker 1 is down: it was killed by signal 9" in caplog.text
    assert len(workers.ports) == 1  # told once


async def test_rests_double_up_to_the_longest_and_calm_forgives(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    backoff = Backoff(first_s=0.1, longest_s=0.3, calm_s=3_600.0)
    crash = "ready()\nif index == 1 and lives < 4: sys.exit(7)\nuntil_told()"
    await workers.run(crash, lambda: len(workers.lives(1)) == 5, backoff)
    rests = [found[1] for line in caplog.messages if (found := re.search(r"in (\S+) s", line))]
    assert rests == ["0.1", "0.2", "0.3", "0.3"]
    assert "it ended with code 7" in caplog.text
    caplog.clear()
    (workers.folder / "again").mkdir()
    again = Workers(workers.folder / "again")
    calm = Backoff(first_s=0.1, longest_s=0.3, calm_s=0.0)
    await again.run(crash, lambda: len(again.lives(1)) == 5, calm)
    rests = [found[1] for line in caplog.messages if (found := re.search(r"in (\S+) s", line))]
    assert rests == ["0.1", "0.1", "0.1", "0.1"]


async def test_a_restart_that_fails_is_tried_again(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "statekeep.supervisor")
    script = """
if index == 1 and lives == 0: ready(); sys.exit(1)
if index == 1 and lives == 1: print('{"error": "no database", "code": 3, "hint": ""}'); sys.exit(3)
if index == 1 and lives == 2: sys.exit(4)
ready(); until_told()
"""
    stopped = await workers.run(script, lambda: "Worker 1 serves again" in caplog.text)
    assert stopped is Stopped.DRAINED
    assert "Worker 1 is down: no database" in caplog.text
    assert "Worker 1 is down: it ended with code 4 before it served" in caplog.text


async def test_a_worker_that_cannot_start_ends_all(workers: Workers) -> None:
    script = """
if index == 1: print('{"error": "no schema", "code": 3, "hint": "migrate"}'); sys.exit(3)
ready(); until_told()
"""
    with pytest.raises(WorkersFailed, match="no schema") as caught:
        await workers.run(script)
    assert (caught.value.ended.code, caught.value.ended.hint) == (3, "migrate")
    assert not workers.ports
    assert all(gone(each) for index in (0, 1) for each in workers.lives(index))


async def test_a_command_that_does_not_exist_is_an_error() -> None:
    settings = Settings(database_url="postgresql://db/x", port=0, workers=2)
    with pytest.raises(WorkersFailed, match="cannot be started: No such file"):
        await run_workers(
            settings,
            command=("/no/such/file",),
            log_level="INFO",
            log_format="text",
            on_ready=lambda _: None,
        )


async def test_a_second_signal_ends_workers_that_do_not_drain(workers: Workers) -> None:
    stubborn = "ready(); until_told(); (folder / f'told-{index}').touch(); time.sleep(600)"

    async def insist() -> None:
        while len(list(workers.folder.glob("told-*"))) < 2:
            await asyncio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.TaskGroup() as group:
        group.create_task(insist())
        stopped = await workers.run(stubborn)
    assert stopped is Stopped.FORCED
    assert all(gone(each) for index in (0, 1) for each in workers.lives(index))


async def test_a_worker_that_could_not_close_everything_is_told_of(workers: Workers) -> None:
    late = "ready(); until_told(); sys.exit(index)"
    assert await workers.run(late) is Stopped.LATE


async def test_stopping_does_not_wait_for_a_resting_worker(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    rests = Backoff(first_s=3_600.0, longest_s=3_600.0)
    crash = "ready()\nif index == 1: time.sleep(0.2); sys.exit(1)\nuntil_told()"
    stopped = await workers.run(crash, lambda: "Worker 1 is down" in caplog.text, rests)
    assert stopped is Stopped.DRAINED


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:///states.db", "sqlite:///states.db"])
async def test_sqlite_is_refused_with_its_reason(url: str) -> None:
    check_workers(Settings(database_url=url))
    with pytest.raises(CannotSupervise, match="one writer at a time"):
        await run_workers(
            Settings(database_url=url, workers=2),
            command=("true",),
            log_level="INFO",
            log_format="text",
            on_ready=lambda _: None,
        )
