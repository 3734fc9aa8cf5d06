"""Every command of the rollout guide runs, in its order, against a real server."""

import os
import re
import subprocess
from pathlib import Path

from tests.support.cli_server import cli_server
from tests.support.project import BIN, ROOT


async def test_the_commands_of_the_guide_run(tmp_path: Path, sqlite_url: str) -> None:
    guide = (ROOT / "docs/rollout.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) > 10
    async with cli_server(tmp_path, database_url=sqlite_url) as server:
        for line in commands:
            program, *words = line.split()
            assert program == "statekeep"
            done = subprocess.run(  # the server is a process of its own
                [BIN / program, *words],
                env={**os.environ, "STATEKEEP_TARGET": server.target},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (line, done.stderr)
        await server.logged("Using optimized state persistence for 10 % of runs")
        last = [line for line in server.log.splitlines() if "Using " in line][-1]
        assert '"Using standard state persistence"' in last
