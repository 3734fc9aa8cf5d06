"""The quick start of the README does what it says, against a real server."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import BIN, ROOT

START_TIMEOUT_S = 60.0


def blocks(language: str) -> list[str]:
    """List the code blocks of the README in one language."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a newcomer: nothing is set but a data folder of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STATEKEEP_")}
    return kept | {"XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}


@pytest.fixture
def target(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    """A server, started as the README says but on a free port."""
    port_file = tmp_path / "port"
    with subprocess.Popen(
        [BIN / "statekeep", "serve", "--port", "0", "--port-file", port_file],
        env=environment | {"ENABLE_OPTIMIZED_PERSISTENCE": "true"},
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            give_up_s = time.monotonic() + START_TIMEOUT_S
            while not port_file.exists():
                assert server.poll() is None, "the server did not start"
                assert time.monotonic() < give_up_s, "the server took too long to start"
                time.sleep(0.02)
            yield f"127.0.0.1:{port_file.read_text()}"
        finally:
            server.terminate()
    assert server.returncode == 0


def test_the_quick_start_runs(target: str, environment: dict[str, str]) -> None:
    (program,) = blocks("python")
    assert "127.0.0.1:50551" in program
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("127.0.0.1:50551", target)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes, conflict = done.stdout.splitlines()
    assert outcomes == "PERSISTED SKIPPED True"
    assert "1" in conflict
    assert "2" in conflict

    views = [line for block in blocks("") for line in block.splitlines() if "run-1" in line]
    assert len(views) == 2
    for view in [*views, "statekeep stats"]:
        _, *arguments = view.split()
        done = subprocess.run(
            [BIN / "statekeep", *arguments],
            env=environment | {"STATEKEEP_TARGET": target},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
