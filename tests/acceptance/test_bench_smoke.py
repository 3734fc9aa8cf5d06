"""One small run of the benchmark: it starts its servers, measures, and writes its results."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(300)
def test_a_small_run_writes_its_targets(tmp_path: Path) -> None:
    options = ("--scenarios", "sqlite", "--rounds", "1", "--seconds", "0.3", "--results")
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks", *options, str(tmp_path)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = orjson.loads((tmp_path / "latest.json").read_bytes())
    # That the machine is busy with other tests is no fault of the run.
    assert not [each for each in found["problems"] if " was crowded: " not in each]
    assert {"machine", "commit", "versions", "targets", "rounds"} <= set(found)
    by_name = {each["name"]: each for each in found["targets"]}
    sqlite = by_name["SQLite, saves/s : aiosqlite session per save, same front"]
    assert sqlite["measured"] > 0
    assert sqlite["concurrency"] == "64"
    lone = by_name["p50 of a lone save : echo + raw asyncpg statement"]
    assert (lone["measured"], lone["met"], lone["why"]) == (None, False, "not asked for")
    assert sqlite["name"] in done.stdout
    assert "server" in (tmp_path / "latest.md").read_text()
