"""Every command that the guides name runs against a real server, and each entry has its parts."""

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from statekeep import Client
from statekeep_server.cli.main import app
from tests.support.cli_server import cli_server
from tests.support.project import ROOT

GUIDES = ("docs/operations.md", "docs/troubleshooting.md")
"""Those of docs/rollout.md run in their order in a test of their own."""
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

NOT_RUN = {
    "statekeep serve": "the server of this test is one",
    "statekeep stats --watch": "it never ends; run with an end instead",
}
"""Commands that do not run as they stand, and why."""

FILLED_IN = {"RUN": "run-1", "N": "1", "HOST:PORT": "127.0.0.1:50551"}
"""What the guides leave to the reader."""

SYMPTOMS = (
    "A flag that seems to have no effect",
    "A very high skip rate",
    "Frequent fallbacks",
    "An exhausted pool",
)
PARTS = ("**Symptom**", "**Command**", "**Cause", "ure**")


def commands(guide: str) -> Iterator[str]:
    """List the commands of a guide, in blocks and in sentences, each once and in their order."""
    text = (ROOT / guide).read_text(encoding="utf-8")
    found = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    found += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    for line in dict.fromkeys(found):
        words = line.split()
        # One word alone names the command and does not ask to run it.
        if words[:1] == ["statekeep"] and len(words) > 1:
            yield " ".join(FILLED_IN.get(word, word) for word in words)


def runnable(line: str) -> str | None:
    """Make a command end; None for one that is not run."""
    if line == "statekeep stats --watch":
        return f"{line} --count 1 --every 0.1"
    return None if any(line.startswith(each) for each in NOT_RUN) else line


@pytest.mark.parametrize("guide", GUIDES)
async def test_the_commands_of_a_guide_run(
    guide: str, tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(commands(guide))
    assert len(found) > 5
    monkeypatch.setenv("STATEKEEP_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("COLUMNS", "200")
    async with cli_server(tmp_path, database_url=sqlite_url) as server:
        monkeypatch.setenv("STATEKEEP_TARGET", server.target)
        # In a thread: each command has a loop of its own.
        failed = await asyncio.to_thread(run_all, found, server.target)
    assert not failed


def run_all(found: list[str], target: str) -> list[str]:
    """Run commands one after the other; return what failed."""
    with Client(target) as client:
        client.save("run-1", {"step": 1})
    failed = []
    for each in found:
        line = runnable(each)
        if line is None:
            continue
        words = shlex.split(line.replace(FILLED_IN["HOST:PORT"], target))[1:]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        if done.exit_code != 0:
            failed.append(f"{each}: {done.exit_code}\n{done.output}")
    return failed


def test_every_exception_is_in_a_guide() -> None:
    named = {line for guide in GUIDES for line in commands(guide)}
    assert all(any(line.startswith(each) for line in named) for each in NOT_RUN)


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_each_symptom_has_command_cause_and_cure(symptom: str) -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    _, _, entry = text.partition(f"\n## {symptom}\n")
    entry = entry.partition("\n## ")[0]
    assert entry
    assert not [part for part in PARTS if part not in entry]
    said = entry.partition("**Command**")[2].partition("**Cause")[0]
    assert "`statekeep " in said, "a command to run"


def test_the_phases_of_a_rollout_stand_in_their_order() -> None:
    text = (ROOT / "docs/rollout.md").read_text(encoding="utf-8").partition("## The phases")[2]
    phases = (
        "Measure before",
        "**Development**",
        "**Staging**",
        "**Canary**",
        "**Full**",
        "**Back**",
    )
    places = [text.index(phase) for phase in phases]
    assert places == sorted(places)
    assert "statekeep rollout 10%" in text[places[3] : places[4]]
