"""The programs in the client's documentation run, and print what they say they print."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.project import ROOT
from tests.support.server_process import ServerProcess

PROGRAM = re.compile(r"^```python\n(.*?)^```\n(?:\n((?:    [^\n]+\n)+))?", re.MULTILINE | re.DOTALL)
DOCUMENTS = ("docs/python-client.md", "client/python/README.md")


def programs() -> list[tuple[str, str, list[str]]]:
    """List each program with its document and what is shown of its output."""
    found = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for number, match in enumerate(PROGRAM.finditer(text), start=1):
            said = re.findall(r"^ *print\(.*\)  # (.*)$", match[1], re.MULTILINE)
            said += [line.strip() for line in (match[2] or "").splitlines()]
            found.append((f"{document} {number}", match[1], said))
    return found


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    url = f"sqlite+aiosqlite:///{tmp_path}/statekeep.db"
    async with ServerProcess(url, optimized=True) as server:
        yield server.target


async def test_every_program_runs(target: str) -> None:
    found = programs()
    assert len(found) > 8
    # All in one process, which is quicker; each is a program of its own otherwise.
    lines = ["import asyncio, os"]
    for name, program, _ in found:
        lines.append(f"print({f'## {name}'!r})")
        lines.append(f"exec(compile({program!r}, {name!r}, 'exec'), {{'__name__': '__main__'}})")
    source = "\n".join(lines).replace("127.0.0.1:50551", target)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env={"STATEKEEP_TARGET": target, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split("## ")[1:]
    assert len(printed) == len(found)
    for (name, _, said), output in zip(found, printed, strict=True):
        title, *shown = output.splitlines()
        assert title == name
        missing = [line for line in said if line not in shown]
        assert not missing, f"{name} prints {shown}"
