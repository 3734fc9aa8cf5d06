"""What operators look at while they roll out: ab report, stats --watch, rollout reset, doctor."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from statekeep import AsyncClient
from tests.support.cli_server import CliServer, cli_server
from tests.support.postgres import Postgresql
from tests.support.project import BIN

RUNS = 20
SHADOW = {
    "ENABLE_OPTIMIZED_PERSISTENCE": "true",
    "OPTIMIZED_PERSISTENCE_ROLLOUT": "50",
    "OPTIMIZED_PERSISTENCE_SHADOW": "true",
}


@pytest.fixture
async def server(tmp_path: Path, sqlite_url: str) -> AsyncIterator[CliServer]:
    """A server of one half of the runs, with the other half in the shadow."""
    async with cli_server(tmp_path, database_url=sqlite_url, **SHADOW) as serving:
        yield serving


def environment(**variables: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STATEKEEP_", "OPTIMIZED_", "ENABLE_OPTIMIZED", "OTEL_", "LOG_"))
    }
    return kept | variables


async def begin(*words: str, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        BIN / "statekeep",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )


async def statekeep(*words: str, code: int = 0, **variables: str) -> str:
    """Run a command that ends with a code; return what it printed."""
    process = await begin(*words, **variables)
    out, err = await process.communicate()
    assert process.returncode == code, err.decode() + out.decode()
    assert b"Traceback" not in err
    return out.decode()


async def saves(server: CliServer, each: int) -> None:
    """Save every state twice, in runs of both arms."""
    async with AsyncClient(server.target) as client:

        async def run(number: int) -> None:
            for step in range(each):
                await client.save(f"run-{number}", {"n": step // 2}, checkpoint_type="AUTO")

        await asyncio.gather(*map(run, range(RUNS)))


async def test_both_arms_are_compared(server: CliServer) -> None:
    shown = await statekeep("ab", "report", "--target", server.target)
    assert "Not enough saves yet: optimized has 0, standard 0" in shown
    await saves(server, 20)
    found = json.loads(
        await statekeep(
            "ab", "report", "--json", "--target", server.target, "--target", server.target
        )
    )
    assert found["servers"] == 1, "named twice, asked once"
    assert found["enough"]
    assert found["standard"]["saves"] + found["optimized"]["saves"] == RUNS * 20
    assert found["standard"]["skip_rate"]["value"] == 0.0
    assert found["optimized"]["skip_rate"]["value"] == 0.5
    assert found["rows_change"] == pytest.approx(-0.5)
    assert "wrote 50 % fewer rows a save; errors alike, no fallbacks." in found["verdict"]
    shown = await statekeep("ab", "report", "--target", server.target)
    assert found["verdict"].partition(" and ")[2] in shown
    stats = json.loads(await statekeep("stats", "-o", "json", "--target", server.target))
    assert stats["shadow"]["would_skip"] == found["standard"]["saves"] / 2
    assert stats["shadow"]["disagreements"] == 0
    assert stats["kpis"]["writes_avoided"] == 2 * found["optimized"]["saves"]
    shown = await statekeep("stats", "--target", server.target)
    assert "would skip %" in shown
    assert "KPIs" in shown


async def test_what_happens_is_watched(server: CliServer) -> None:
    words = ("stats", "--watch", "--every", "0.2", "--target", server.target)
    lines = (await statekeep(*words, "--count", "2")).splitlines()
    assert [("saves/s=" in each, "\x1b" in each) for each in lines] == [(True, False)] * 2
    told = json.loads(await statekeep(*words, "--count", "1", "-o", "json"))
    assert told["tripped"] is False


async def test_watching_ends_cleanly_and_outlives_a_server(server: CliServer) -> None:
    process = await begin("stats", "--watch", "--every", "0.1", "--target", server.target)
    assert process.stdout is not None
    assert b"saves/s=" in await process.stdout.readline()
    await server.end(signal.SIGKILL)
    while b"no answer" not in (shown := await process.stdout.readline()):
        assert shown
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_watching_needs_a_server_to_begin_with(tmp_path: Path) -> None:
    await statekeep("stats", "--watch", "--target", "127.0.0.1:1", code=3)


async def test_a_reset_is_a_change_that_changes_nothing(server: CliServer) -> None:
    async def said() -> tuple[Any, Any]:
        flags = json.loads(
            await statekeep("flags", "show", "-o", "json", "--target", server.target)
        )
        return flags["in_force"], [(each["name"], each["value"]) for each in flags["flags"]]

    before = await said()
    await statekeep("rollout", "reset", "--target", server.target)
    assert await said() == before, "what the environment says"
    await statekeep("rollout", "30%", "--target", server.target)
    before = await said()
    out = await statekeep("rollout", "reset", "--by", "someone", "--target", server.target)
    assert "ENABLE_OPTIMIZED_PERSISTENCE for fleet: true -> true" in out
    assert await said() == before, "what is stored"
    history = await statekeep("flags", "history", "--target", server.target)
    assert "someone" in history


async def findings(*words: str, code: int = 0, **variables: str) -> dict[str, list[dict[str, str]]]:
    """Ask the doctor; return the findings by what they are about."""
    found = json.loads(await statekeep("doctor", "--json", *words, code=code, **variables))
    assert found["healthy"] == (code == 0)
    by_about: dict[str, list[dict[str, str]]] = {}
    for each in found["findings"]:
        by_about.setdefault(each["about"], []).append(each)
    return by_about


async def test_the_doctor_creates_nothing(tmp_path: Path) -> None:
    found = await findings(STATEKEEP_DATABASE_URL=f"sqlite:///{tmp_path}/new/a.db")
    assert "not there yet" in found["database file"][0]["found"]
    assert not (tmp_path / "new").exists()


async def test_the_doctor_looks_at_a_served_file(server: CliServer, sqlite_url: str) -> None:
    variables: dict[str, Any] = {"STATEKEEP_DATABASE_URL": sqlite_url}
    found = await findings("--target", server.target, **variables)
    assert found["schema"][0]["health"] == found["server"][0]["health"] == "ok"
    Path(sqlite_url.partition("///")[2]).chmod(0o644)
    found = await findings(code=1, **variables)
    assert "can be reached by others" in found["database file"][0]["found"]
    out = await statekeep("doctor", code=1, **variables)
    assert "chmod 600" in out
    assert "There are problems." in out


async def test_the_doctor_misses_a_server() -> None:
    found = await findings("--target", "127.0.0.1:1", code=1)
    assert "no server at 127.0.0.1:1" in found["server"][0]["found"]


@pytest.mark.postgresql
async def test_the_doctor_looks_at_postgresql(postgresql: Postgresql, postgresql_url: str) -> None:
    variables: dict[str, Any] = {"STATEKEEP_DATABASE_URL": postgresql_url}
    found = await findings(**variables)
    assert "PostgreSQL" in found["database"][0]["found"]
    assert {found[name][0]["health"] for name in ("durability", "schema", "clock")} == {"ok"}
    assert found["connections"][0]["health"] in {"ok", "warning"}
    database = postgresql_url.rpartition("/")[2].partition("?")[0]
    await postgresql.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    found = await findings(code=1, **variables)
    assert found["durability"][0]["found"] == "synchronous_commit is off"


@pytest.mark.postgresql
async def test_the_doctor_misses_the_schema(postgresql: Postgresql) -> None:
    async with postgresql.database(migrated=False) as url:
        found = await findings(code=1, STATEKEEP_DATABASE_URL=url)
    assert found["schema"][0]["found"].startswith("revision none")
    assert "statekeep migrate" in found["schema"][0]["cure"]


async def test_the_doctor_never_tells_a_password() -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/x"
    for words in ((), ("--json",)):
        out = await statekeep("doctor", *words, code=1, STATEKEEP_DATABASE_URL=url)
        assert "hunter2" not in out
    out = await statekeep(
        "doctor",
        code=1,
        STATEKEEP_DATABASE_URL="nonsense://me:hunter2@x",
        STATEKEEP_TOKEN="hunter2",
    )
    assert "hunter2" not in out
