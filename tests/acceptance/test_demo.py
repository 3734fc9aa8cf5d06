"""The demo, as a newcomer runs it."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.project import BIN

STATEKEEP = BIN / "statekeep"


def demo(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    # A newcomer's own settings must not reach the demo's server.
    variables = {"STATEKEEP_TOKEN": "own", "STATEKEEP_PORT": "1", "STATEKEEP_TARGET": "x:1"}
    return subprocess.run(
        [STATEKEEP, "demo", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_nothing_acknowledged_is_lost_and_half_of_the_saves_cost_nothing() -> None:
    ran = demo("-o", "json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["good"] is True
    assert report["lost"] == 0
    assert all(proof["holds"] for proof in report["proofs"])
    assert len(report["proofs"]) == 5
    assert 0.25 < report["killed_at_step"] / report["steps"] < 0.75
    assert report["persisted"] + report["skipped"] == report["acknowledged"]
    assert report["acknowledged"] <= report["asked"] <= report["acknowledged"] + 1
    assert 40 <= report["skipped_percent"] <= 60
    assert report["rows_avoided"] > report["skipped"]


def test_the_table_says_it_and_the_evidence_can_be_kept(tmp_path: Path) -> None:
    ran = demo("--steps", "60", "--seed", "7", "--folder", tmp_path)
    assert ran.returncode == 0, ran.stderr
    for words in (
        "saves asked",
        "persisted",
        "skipped",
        "database writes avoided",
        "time per skipped save",
        "proved: nothing acknowledged was lost",
        "The agent's answer: The tour has",
    ):
        assert words in ran.stdout
    assert "FAILED" not in ran.stdout
    assert (tmp_path / "statekeep.db").exists()
    assert list(tmp_path.glob("demo-*.journal"))


def test_the_demo_leaves_nothing_behind_when_it_is_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(
        [STATEKEEP, "demo", "--steps", "400", "--folder", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        assert "The agent works" in running.stderr.readline()
        while not list(tmp_path.glob("demo-*.journal")):
            assert running.poll() is None
        assert processes_that_name(tmp_path)
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 143
    assert "Traceback" not in err
    assert not processes_that_name(tmp_path)


def processes_that_name(path: Path) -> list[str]:
    """The command lines of this machine's processes that hold a path, where they can be seen."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [each for each in found if str(path) in each]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = demo("--folder", tmp_path / "file" / "folder")
    assert ran.returncode == 2
    assert ran.stderr.startswith("statekeep: error: cannot use ")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("steps", ["0", "39", "many"])
def test_too_few_steps_are_refused(steps: str) -> None:
    assert demo("--steps", steps).returncode == 2
