"""`statekeep bench load` on a real server: what it says, and that it leaves nothing behind."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_server import cli_server
from tests.support.project import BIN

STATEKEEP = BIN / "statekeep"
SMALL = ("--runs=8", "--duration=0.5", "--warm-up=0", "--processes=2", "-c4", "--state-bytes=2000")
TOKEN = "a-token-that-nobody-may-see"


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [STATEKEEP, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | variables,
    )


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    """A server on the optimized path that asks for a token."""
    async with cli_server(
        tmp_path,
        database_url=f"sqlite:///{tmp_path}/states.db",
        ENABLE_OPTIMIZED_PERSISTENCE="true",
        STATEKEEP_TOKEN=TOKEN,
    ) as server:
        yield server.target


def report(ran: "subprocess.CompletedProcess[str]") -> Any:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


async def test_a_server_is_loaded_and_left_clean(target: str) -> None:
    where = ("--target", target)
    told = report(
        run("bench", "load", "mixed", *where, *SMALL, "-o", "json", STATEKEEP_TOKEN=TOKEN)
    )
    by_name = {each["name"]: each for each in told["calls"]}
    assert set(by_name) == {"save", "skip", "load", "all"}
    assert by_name["all"]["calls"] == sum(
        by_name[name]["calls"] for name in by_name if name != "all"
    )
    for each in by_name.values():
        assert each["errors"] == 0
        assert 0 < each["p50_ms"] <= each["p90_ms"] <= each["p99_ms"]
    assert told["outcomes"] == {
        "PERSISTED": by_name["save"]["calls"],
        "SKIPPED": by_name["skip"]["calls"],
        "LOADED": by_name["load"]["calls"],
    }
    assert len(told["client_shares"]) == 2
    runs = report(run("runs", *where, "-o", "json", STATEKEEP_TOKEN=TOKEN))
    assert runs == {"runs": []}


async def test_a_table_says_it_and_a_rate_that_is_too_high_is_told(target: str) -> None:
    ran = run(
        *("bench", "load", "save", "--target", target, "--rate=100000"),
        *("--runs=4", "--duration=0.3", "--warm-up=0", "--processes=1", "-c2"),
        STATEKEEP_TOKEN=TOKEN,
    )
    assert ran.returncode == 0, ran.stderr
    for words in ("a second", "p90 ms", "p99 ms", "PERSISTED", "Client: 1 processes"):
        assert words in ran.stdout
    assert "statekeep: warning: fell behind: " in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("save", "--target", "127.0.0.1:1"), 3, "no server at 127.0.0.1:1"),
        (("save", "--target", "{target}"), 1, "token"),
        (("everything",), 2, "everything"),
    ],
    ids=["nobody", "no-token", "no-kind"],
)
async def test_what_cannot_be_done_is_told(
    target: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = run("bench", "load", *(each.replace("{target}", target) for each in arguments), *SMALL)
    assert ran.returncode == code, ran.stderr
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert TOKEN not in ran.stderr + ran.stdout
