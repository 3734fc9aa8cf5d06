"""A fleet of three servers follows what an operator sets, without a restart."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from statekeep import AsyncClient
from tests.support.cli_server import CliServer, cli_server
from tests.support.project import BIN

STANDARD = "Using standard state persistence"
OPTIMIZED = "Using optimized state persistence"

pytestmark = pytest.mark.postgresql


@pytest.fixture
async def fleet(tmp_path: Path, postgresql_url: str) -> AsyncIterator[list[CliServer]]:
    """Three servers of one database: a plain one, one of two workers, and one that says false."""
    async with AsyncExitStack() as stack:
        servers = []
        for number, (arguments, variables) in enumerate(
            [((), {}), (("--workers", "2"), {}), ((), {"ENABLE_OPTIMIZED_PERSISTENCE": "false"})]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            servers.append(
                await stack.enter_async_context(
                    cli_server(folder, *arguments, database_url=postgresql_url, **variables)
                )
            )
        yield servers


async def statekeep(server: CliServer, *words: str) -> tuple[int, str, str]:
    """Run a command against a server."""
    process = await asyncio.create_subprocess_exec(
        BIN / "statekeep",
        *words,
        "--target",
        server.target,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "STATEKEEP_TARGET"},
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def shown(server: CliServer, *words: str) -> Any:
    code, out, err = await statekeep(server, *words, "-o", "json")
    assert code == 0, err
    return json.loads(out)


async def last_said(server: CliServer, line: str, times: int = 1) -> None:
    """Wait until so many processes of a server said as their last word which path serves."""
    async with asyncio.timeout(30):
        while True:
            lasts: dict[int, str] = {}
            # The last line may be half written.
            for each in map(json.loads, server.log.rpartition("\n")[0].splitlines()):
                if each["message"].startswith("Using "):
                    lasts[each.get("worker", 0)] = each["message"]
            if [said == line for said in lasts.values()] == [True] * times:
                return
            await asyncio.sleep(0.01)


async def saved_by(server: CliServer, run_id: str) -> str:
    async with AsyncClient(server.target) as client:
        return (await client.save(run_id, {"step": 1})).path


async def test_a_fleet_follows_at_run_time(fleet: list[CliServer]) -> None:
    plain, workers, off = fleet
    await last_said(plain, STANDARD)
    await last_said(workers, STANDARD, times=2)

    code, out, _ = await statekeep(plain, "rollout", "on", "--by", "ann")
    assert code == 0
    assert "ENABLE_OPTIMIZED_PERSISTENCE for fleet: unset -> true (version 2)" in out
    await last_said(plain, OPTIMIZED)
    await last_said(workers, OPTIMIZED, times=2)
    await off.logged("name=ENABLE_OPTIMIZED_PERSISTENCE scope='fleet' from=unset to=true by='ann'")
    assert [await saved_by(server, "run-1") for server in fleet] == [
        "OPTIMIZED",
        "OPTIMIZED",
        "STANDARD",
    ]

    # The way back, through the server whose environment says false: at once and everywhere.
    code, _, err = await statekeep(off, "rollout", "off", "--by", "bob")
    assert code == 0
    await last_said(plain, STANDARD)
    await last_said(workers, STANDARD, times=2)
    assert await saved_by(workers, "run-1") == "STANDARD"
    assert off.log.count("Using ") == 1

    # And on again: that one keeps to its environment, and the command says so.
    code, _, err = await statekeep(off, "flags", "set", "ENABLE_OPTIMIZED_PERSISTENCE", "true")
    assert "the environment of the server that answered says" in " ".join(err.split())
    history = (await shown(workers, "flags", "history"))["changes"]
    assert [(c["version"], c["value_after"]) for c in history] == [
        (4, "true"),
        (3, "false"),
        (2, "true"),
        (1, "100"),
    ]


async def test_a_share_overrides_and_the_log_level(fleet: list[CliServer]) -> None:
    plain, workers, _ = fleet
    assert (await statekeep(plain, "rollout", "10%"))[0] == 0
    await last_said(workers, f"{OPTIMIZED} for 10 % of runs", times=2)
    assert (await statekeep(plain, "rollout", "on", "--run", "mine"))[0] == 0
    assert (await statekeep(plain, "rollout", "off", "--tenant", "default"))[0] == 0
    await last_said(workers, f"{OPTIMIZED} for 10 % of runs (set otherwise: tenants=1 runs=1)", 2)
    assert await saved_by(workers, "mine") == "OPTIMIZED"
    assert {await saved_by(workers, f"run-{number}") for number in range(40)} == {"STANDARD"}

    assert (await statekeep(plain, "flags", "set", "LOG_LEVEL", "error"))[0] == 0
    await workers.logged("name=LOG_LEVEL scope='fleet' from=unset to=ERROR")
    found = await shown(workers, "flags", "show")
    assert {each["name"]: each["value"] for each in found["in_force"]} == {
        "ENABLE_OPTIMIZED_PERSISTENCE": "true",
        "OPTIMIZED_PERSISTENCE_ROLLOUT": "10",
        "OPTIMIZED_PERSISTENCE_MONITORING": "true",
        "OPTIMIZED_PERSISTENCE_SHADOW": "false",
        "LOG_LEVEL": "ERROR",
    }
    assert (await statekeep(plain, "flags", "unset", "LOG_LEVEL"))[0] == 0


async def test_commands_refuse_nonsense(fleet: list[CliServer]) -> None:
    plain, *_ = fleet
    for words, code, said in (
        (("rollout", "lots"), 2, "percentage from 0 to 100"),
        (("rollout", "10%", "--run", "r"), 2, "`on` or `off`"),
        (("flags", "set", "ENABLE_OPTIMIZED_PERSISTENCE", "yess"), 1, "true, 1, yes, on"),
        (("flags", "set", "NO_FLAG", "1"), 1, "must be one of"),
        (("flags", "set", "LOG_LEVEL", "INFO", "--expected-version", "9"), 1, "expected version 9"),
    ):
        found, _, err = await statekeep(plain, *words)
        assert (found, said in " ".join(err.split())) == (code, True), err
    assert (await shown(plain, "flags", "history"))["changes"] == []
