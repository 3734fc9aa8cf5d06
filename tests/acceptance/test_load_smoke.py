"""`make load` with the real ghz and few calls.

Building ghz takes a minute, so that this runs where it is built already, and in CI.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from statekeep_server.bench.record import record
from statekeep_server.bench.trajectories import write_trajectories
from tests.support.making import make
from tests.support.project import ROOT

GHZ = ROOT / "build/tools/ghz"
PLAN = """
rounds = 1
calls = 60
max_duration_s = 20
concurrency = [4]
connections = 2
state_bytes = 2048
runs = 16
zipf_exponent = 1.1
mixed = { save = 1, skip = 2, load = 1 }
open_loop = { share = 0.5, duration_s = 0.2 }
"""


@pytest.fixture
def ghz() -> Path:
    """The program, built where that is asked for."""
    if not GHZ.exists():
        if shutil.which("go") is None:
            pytest.skip("make load: Go is missing, and ghz is not built")
        if not os.environ.get("CI"):
            pytest.skip("make load: ghz is not built; `make build/tools/ghz` takes a minute")
        built = make("build/tools/ghz")
        assert built.returncode == 0, built.stderr
    return GHZ


@pytest.mark.timeout(600)  # a first build of ghz, on a machine that runs other tests too
def test_a_tiny_load_run_agrees_with_the_server(ghz: Path, tmp_path: Path) -> None:
    recording, plan = tmp_path / "recording.jsonl.gz", tmp_path / "plan.toml"
    write_trajectories(recording, record(runs=1, steps=20, seed=1))
    plan.write_text(PLAN, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "load", "--ghz", ghz),
            *("--file", recording, "--plan", plan, "--output", tmp_path / "load"),
            *("--results", tmp_path / "results/load.json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every call was OK, and the servers counted what ghz saw." in done.stdout
    report = orjson.loads((tmp_path / "load/report.json").read_bytes())
    closed = {row["name"]: row for row in report["rows"] if row["loop"] == "closed"}
    for name in ("echo", "save", "skip", "load"):
        assert closed[name]["statuses"] == {"OK": 60}
    for name in ("index", "echo", "save", "skip", "load", "mixed"):
        assert (tmp_path / f"load/{name}.html").exists()
    assert orjson.loads((tmp_path / "results/load.json").read_bytes())["rounds"]


@pytest.mark.parametrize("variables", [{}, {"RIVALS": "dapr"}], ids=["ghz", "dapr"])
def test_without_go_one_line_says_so(tmp_path: Path, variables: dict[str, str]) -> None:
    ours = tmp_path / "ghz"
    if variables:
        ours.touch()
    done = make(
        *("load", f"GHZ={ours}", f"DAPRD={tmp_path}/daprd", *map("=".join, variables.items())),
        PATH=str(tmp_path),
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(said) == 1
    assert "needs Go" in said[0]
    assert "Error 3" in done.stderr
    assert done.returncode != 0
