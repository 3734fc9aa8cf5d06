"""The `statekeep` command as its users meet it: a process with words and exit codes."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statekeep import Client
from tests.support.project import BIN

STATEKEEP = BIN / "statekeep"
PASSWORD = "hunter2"


class Cli:
    """Runs commands in a folder of the test's own, with nothing set but what the test sets."""

    def __init__(self, folder: Path) -> None:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("STATEKEEP_")
        }
        kept.pop("LOG_LEVEL", None)
        kept.pop("ENABLE_OPTIMIZED_PERSISTENCE", None)
        self.folder = folder
        self.environment = kept | {"XDG_DATA_HOME": str(folder), "HOME": str(folder)}

    def __call__(self, *arguments: str | Path, **variables: str) -> "Done":
        ran = subprocess.run(
            [STATEKEEP, *arguments],
            env=self.environment | variables,
            cwd=self.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(ran.returncode, ran.stdout, ran.stderr.decode())

    def start(self, *arguments: str | Path, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [STATEKEEP, *arguments],
            env=self.environment | variables,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


class Done:
    """What a command said and how it ended."""

    def __init__(self, code: int, raw: bytes, err: str) -> None:
        self.code = code
        self.raw = raw
        self.out = raw.decode(errors="replace")
        self.err = err

    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)

    def one_line(self, code: int) -> str:
        """The error: one line, no traceback, nothing on stdout."""
        assert self.code == code, self.err
        assert not self.out
        assert self.err.startswith("statekeep: error: ")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("statekeep: error: ").strip()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@contextmanager
def serving(cli: Cli) -> Iterator[str]:
    """A server on the embedded default, on the optimized path."""
    with cli.start("serve", "--port", "0", ENABLE_OPTIMIZED_PERSISTENCE="true") as server:
        # The log is read all the time, or the server would stop at a full pipe.
        assert server.stderr is not None
        reader = threading.Thread(target=server.stderr.read)
        reader.start()
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[3].rstrip(",")
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
            reader.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, str]]:
    """A server with a few saves, for tests that only look."""
    cli = Cli(tmp_path_factory.mktemp("served"))
    with serving(cli) as target:
        with Client(target) as client:
            for step in (1, 1, 2):
                client.save("run-1", {"step": step, "né": 2**70}, checkpoint_type="AUTO")
            client.save(
                "run-1", {"step": 3}, thread_id="t-1", user_id="u-1", agent_phase="planning"
            )
            client.save("run-2", b"\x00\xffbytes", content_type="application/x-own")
        yield cli, target


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("--version").out == "statekeep 0.1.0\n"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["serve"],
        ["migrate"],
        ["runs"],
        ["history"],
        ["show"],
        ["delete"],
        ["info"],
        ["stats"],
        ["demo"],
        ["bench"],
        ["bench", "record"],
        ["bench", "replay"],
    ],
    ids=" ".join,
)
def test_every_command_helps(cli: Cli, command: list[str]) -> None:
    done = cli(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage: statekeep" in done.out


def test_help_imports_nothing_that_takes_time(cli: Cli) -> None:
    heavy = ("grpc", "sqlalchemy", "alembic", "asyncpg", "uvloop", "pydantic")
    code = (
        "import sys, contextlib\n"
        "from statekeep_server.__main__ import main\n"
        "sys.argv = ['statekeep', '--help']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run(
        [BIN / "python", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stderr == "[]\n"


@pytest.mark.parametrize(
    "command",
    [["runs"], ["history", "r"], ["show", "r"], ["delete", "r", "--yes"], ["info"], ["stats"]],
    ids=" ".join,
)
def test_without_a_server_it_says_how_to_start_one(cli: Cli, command: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing can answer here
        port = taken.getsockname()[1]
        error = cli(*command, "--target", f"127.0.0.1:{port}").one_line(3)
    assert f"no server at 127.0.0.1:{port}" in error
    assert "statekeep serve" in error


def test_runs_are_listed(served: tuple[Cli, str]) -> None:
    cli, saved = served
    runs = cli("runs", "--target", saved, "-o", "json").json()["runs"]
    assert [(run["run_id"], run["version"]) for run in runs] == [("run-2", 1), ("run-1", 3)]
    table = cli("runs", STATEKEEP_TARGET=saved)
    assert table.code == 0
    assert "run-1" in table.out
    assert "run-2" in table.out
    for option in (("--thread", "t-1"), ("--user", "u-1")):
        found = cli("runs", *option, "--target", saved, "-o", "json").json()["runs"]
        assert [run["run_id"] for run in found] == ["run-1"]
    assert len(cli("runs", "--limit", "1", "--target", saved, "-o", "json").json()["runs"]) == 1


def test_the_history_of_a_run_is_listed_newest_first(served: tuple[Cli, str]) -> None:
    cli, saved = served
    history = cli("history", "run-1", "--target", saved, "-o", "json").json()
    assert history["run_id"] == "run-1"
    assert [each["version"] for each in history["snapshots"]] == [3, 2, 1]
    assert history["snapshots"][0]["checkpoint_type"] == "MANUAL"
    assert len(history["snapshots"][0]["state_sha256"]) == 64
    table = cli("history", "run-1", "--target", saved)
    assert table.code == 0
    assert all(each["snapshot_id"] in table.out for each in history["snapshots"])
    assert "planning" in table.out
    error = cli("history", "no-such-run", "--target", saved).one_line(1)
    assert error == "run 'no-such-run' has no live snapshot"
    assert cli("history", "none", "--target", saved, "-o", "json").json()["snapshots"] == []


def test_a_state_is_shown(served: tuple[Cli, str]) -> None:
    cli, saved = served
    newest = cli("show", "run-1", "--target", saved, "-o", "json").json()
    assert newest["state"] == {"step": 3}
    assert newest["head_version"] == newest["snapshot"]["version"] == 3
    first = cli("show", "run-1", "--version", "1", "--target", saved, "-o", "json").json()
    assert first["state"] == {"step": 1, "né": 2**70}
    snapshot_id = first["snapshot"]["snapshot_id"]
    by_id = cli("show", "run-1", "--snapshot-id", snapshot_id, "--target", saved, "-o", "json")
    assert by_id.json() == first
    table = cli("show", "run-1", "--version", "1", "--target", saved)
    assert table.code == 0
    assert snapshot_id in table.out
    assert f'"né": {2**70}' in table.out


def test_the_bytes_of_a_state_come_out_as_they_went_in(served: tuple[Cli, str]) -> None:
    cli, saved = served
    assert cli("show", "run-2", "--raw", "--target", saved).raw == b"\x00\xffbytes"
    assert cli("show", "run-2", "--target", saved, "-o", "json").json()["state_hex"] == (
        b"\x00\xffbytes".hex()
    )
    assert "7 bytes that are no JSON" in cli("show", "run-2", "--target", saved).out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "none"], 1, "'none' has no live snapshot"),
        (["show", "run-1", "--version", "9"], 1, "version 9"),
        (["show", "run-1", "--snapshot-id", "nope"], 1, "nope"),
        (["show", "run-1", "--version", "1", "--snapshot-id", "x"], 2, "not both"),
        (["show", "x" * 300], 1, "run_id"),
        (["delete", "run-1"], 2, "say --yes"),
        (["stats", "--tls-ca", "missing.pem"], 2, "cannot read missing.pem: No such file"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_what_cannot_be_answered_is_one_line(
    served: tuple[Cli, str], arguments: list[str], code: int, words: str
) -> None:
    cli, saved = served
    assert words in cli(*arguments, "--target", saved).one_line(code)


def test_a_run_is_deleted_on_demand_only(served: tuple[Cli, str]) -> None:
    cli, target = served
    with Client(target) as client:
        client.save("run-3", {"step": 1}, expires_at=timedelta(hours=1))
        client.save("run-3", {"step": 2})
    done = cli("delete", "run-3", "--yes", "--target", target, "-o", "json")
    assert done.json() == {"run_id": "run-3", "deleted_snapshots": 2}
    cli("show", "run-3", "--target", target).one_line(1)
    again = cli("delete", "run-3", "--yes", "--target", target)
    assert again.out == "Deleted 0 snapshots of run 'run-3'.\n"


def test_the_server_tells_what_it_is_and_did(served: tuple[Cli, str]) -> None:
    cli, saved = served
    info = cli("info", "--target", saved, "-o", "json").json()
    assert (info["path"], info["database"]) == ("OPTIMIZED", "sqlite")
    assert "last_updated" in info["skip_rules"]["ignored_fields"]
    assert "max state bytes" in cli("info", "--target", saved).out
    stats = cli("stats", "--target", saved, "-o", "json").json()
    optimized = next(path for path in stats["paths"] if path["path"] == "OPTIMIZED")
    assert optimized["skipped"] == 1
    assert optimized["saves"] == optimized["persisted"] + 1
    assert optimized["rows_written"] > 0
    table = cli("stats", "--target", saved)
    assert table.code == 0
    assert "UNCHANGED" in table.out
    assert "rows written" in table.out


def test_what_became_of_late_saves_is_shown(served: tuple[Cli, str]) -> None:
    cli, target = served
    assert "Write-behind" not in cli("stats", "--target", target).out
    with Client(target) as client:
        for step in range(3):
            client.save("late", {"step": step}, checkpoint_type="AUTO", write_behind=True)
        client.delete_run("late")
    late = cli("stats", "--target", target, "-o", "json").json()["write_behind"]
    assert (late["buffered"], late["persisted"] + late["coalesced"]) == (2, 2)
    shown = cli("stats", "--target", target).out
    assert "Write-behind" in shown
    assert "durable FIRST_SAVE" in shown


def test_the_embedded_database_belongs_to_its_user_alone(served: tuple[Cli, str]) -> None:
    cli, _ = served
    folder = cli.folder / "statekeep"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "statekeep.db").stat().st_mode) == 0o600


def test_a_server_with_a_token_wants_it(cli: Cli, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    arguments = ["serve", "--port", "0", "--port-file", str(port_file)]
    with cli.start(*arguments, STATEKEEP_TOKEN=PASSWORD, LOG_LEVEL="ERROR") as server:
        assert server.stdout is not None
        server.stdout.readline()
        target = f"127.0.0.1:{port_file.read_text()}"
        error = cli("stats", "--target", target)
        assert error.code == 1
        assert "STATEKEEP_TOKEN" in error.err
        assert cli("stats", "--target", target, STATEKEEP_TOKEN=PASSWORD).code == 0
        assert cli("stats", "--target", target, "--token", "wrong").code == 1
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--port", "http"], {}, ["--port: 'http' is not a port"]),
        ([], {"ENABLE_OPTIMIZED_PERSISTENCE": "maybe"}, ["true, 1, yes, on, false, 0, no, off"]),
        ([], {"LOG_LEVEL": "LOUD", "STATEKEEP_INSECURE": "x"}, ["INSECURE", "LOG_LEVEL"]),
        (["--host", "0.0.0.0"], {}, ["can be reached from other machines"]),
        (["--tls-cert", "a.pem"], {}, ["TLS needs both"]),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], {}, ["cannot read the TLS key b.pem"]),
        (["--database-url", f"mysql://me:{PASSWORD}@db/x"], {}, ["neither sqlite"]),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_told_before_anything_starts(
    cli: Cli, arguments: list[str], variables: dict[str, str], words: list[str]
) -> None:
    done = cli("serve", "--port", "0", *arguments, **{"LOG_LEVEL": "ERROR", **variables})
    assert done.code == 2
    assert not done.out
    lines = done.err.splitlines()
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert line.startswith("statekeep: error: ")
        assert word in line
    assert PASSWORD not in done.err


def test_a_database_that_cannot_be_reached_is_told_without_its_password(cli: Cli) -> None:
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/states"
    for command in (["serve", "--port", "0"], ["migrate"]):
        done = cli(*command, STATEKEEP_DATABASE_URL=url, LOG_LEVEL="DEBUG")
        assert done.code == 3, done.err
        assert "Traceback" not in done.err
        assert PASSWORD not in done.err
        assert done.err.splitlines()[-1].startswith("statekeep: error: ")


def test_a_port_that_is_taken_is_told(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        error = cli("serve", "--port", port, LOG_LEVEL="ERROR").one_line(2)
    assert "Address already in use" in error


def test_a_misspelt_variable_is_pointed_out(cli: Cli) -> None:
    with cli.start("serve", "--port", "0", STATEKEEP_DATABSE_URL="x", LOG_LEVEL="ERROR") as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        server.terminate()
        _, err = server.communicate(timeout=30)
    assert err == (
        "statekeep: warning: nothing reads the variable STATEKEEP_DATABSE_URL "
        "(did you mean STATEKEEP_DATABASE_URL?)\n"
    )


def test_a_migration_may_be_done_twice(cli: Cli) -> None:
    url = f"sqlite:///{cli.folder}/states.db"
    first = cli("migrate", "--database-url", url, "-o", "json").json()
    assert (first["found"], bool(first["reached"])) == (None, True)
    second = cli("migrate", "--database-url", url)
    assert second.out == f"The schema was up to date: revision {first['reached']}.\n"


def test_a_wrong_command_line_is_told(cli: Cli) -> None:
    for arguments in (["nonsense"], ["history"], ["stats", "-o", "xml"], ["runs", "--limit", "0"]):
        done = cli(*arguments)
        assert done.code == 2
        assert "Traceback" not in done.err
