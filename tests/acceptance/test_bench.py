"""Recording and replaying, as a stranger does it, and on real conversations where they are."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from statekeep_server.bench.record import record
from statekeep_server.bench.streams import StreamName, count_saves
from tests.support.project import BIN, ROOT

STATEKEEP = BIN / "statekeep"
RUNS, STEPS, SEED = 3, 24, 5


def bench(*arguments: str | Path, timeout_s: float = 100) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [STATEKEEP, "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def report(ran: "subprocess.CompletedProcess[str]") -> Any:
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "rec.jsonl.gz"
    told = report(
        bench("record", path, f"--runs={RUNS}", f"--steps={STEPS}", f"--seed={SEED}", "-o", "json")
    )
    assert told == {"file": str(path), "trajectories": RUNS, "bytes": path.stat().st_size}
    return path


def expected_saves(name: StreamName) -> int:
    return sum(count_saves(name, each) for each in record(runs=RUNS, steps=STEPS, seed=SEED))


def check(streams: Any, paths: set[str]) -> None:
    """What holds for every replay of the recording."""
    assert set(streams) == {"around", "after"}
    for name, by_path in streams.items():
        assert set(by_path) == paths
        for path, figures in by_path.items():
            assert figures["saves"] == expected_saves(StreamName(name))
            assert figures["persisted"] + figures["skipped"] == figures["saves"]
            assert figures["rows_written"] >= figures["persisted"]
            # Saves that come together may share their statements on the optimized path alone.
            assert figures["statements"] >= (figures["persisted"] if path == "standard" else 1)
            assert 0 < figures["mean_ms"] <= figures["p99_ms"]
            assert figures["oracle_differences"] == figures["lost"] == figures["fallbacks"] == 0


def test_both_paths_are_compared_on_private_servers(recording: Path) -> None:
    told = report(bench("replay", recording, "-o", "json"))
    check(told["streams"], {"standard", "optimized"})
    assert told["lost"] == told["oracle_differences"] == 0
    around, after = told["streams"]["around"], told["streams"]["after"]
    assert around["standard"]["skipped"] == after["optimized"]["skipped"] == 0
    assert around["optimized"]["skipped"] == RUNS * (STEPS - 1)
    assert around["optimized"]["skipped_by_reason"] == {"UNCHANGED": RUNS * (STEPS - 1)}
    less = told["comparison"]["around"]
    assert 35 <= less["snapshots_fewer_percent"] <= 60
    assert less["rows_fewer_percent"] > 0
    assert less["statements_fewer_percent"] > 0


def test_the_table_says_it(recording: Path) -> None:
    ran = bench("replay", recording, "--limit", "1", "--concurrency", "1")
    assert ran.returncode == 0, ran.stderr
    for words in ("stream `around`", "stream `after`", "UNCHANGED", "0 differences. Lost: 0."):
        assert words in ran.stdout
    assert ran.stderr.splitlines() == [
        "around, standard",
        "after, standard",
        "around, optimized",
        "after, optimized",
    ]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    """A running server on the optimized path."""
    environment = os.environ | {"ENABLE_OPTIMIZED_PERSISTENCE": "true", "LOG_LEVEL": "ERROR"}
    url = f"sqlite:///{tmp_path}/states.db"
    with subprocess.Popen(
        [STATEKEEP, "serve", "--port", "0", "--database-url", url],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[3].rstrip(",")
        server.terminate()


def test_a_running_server_can_be_used_twice_and_is_left_clean(recording: Path, target: str) -> None:
    for _ in range(2):
        told = report(bench("replay", recording, "--target", target, "-o", "json"))
        check(told["streams"], {"optimized"})
        assert told["comparison"] == {}
    listed = subprocess.run(
        [STATEKEEP, "runs", "--target", target, "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(listed.stdout) == {"runs": []}


@pytest.mark.postgresql
def test_both_paths_are_compared_on_postgresql(recording: Path, postgresql_url: str) -> None:
    migrated = subprocess.run(
        [STATEKEEP, "migrate", "--database-url", postgresql_url], check=True, capture_output=True
    )
    assert not migrated.stderr
    told = report(bench("replay", recording, "--database-url", postgresql_url, "-o", "json"))
    check(told["streams"], {"standard", "optimized"})
    assert told["streams"]["around"]["optimized"]["skipped"] == RUNS * (STEPS - 1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["replay", "missing.gz"], 2, "cannot read missing.gz: No such file"),
        (["replay", "{rec}", "--database-url", "mysql://x"], 2, "neither sqlite"),
        (["replay", "{rec}", "--target", "a:1", "--database-url", "sqlite:///x"], 2, "leave it"),
        (["replay", "{rec}", "--target", "127.0.0.1:1"], 3, "no server at 127.0.0.1:1"),
        (
            ["replay", "{rec}", "--database-url", "postgresql://u:hunter2@127.0.0.1:1/x"],
            3,
            "the private server did not start",
        ),
        (["record", "no/such/folder/f.gz"], 2, "cannot write no/such/folder/f.gz"),
    ],
    ids=["file", "url", "both", "target", "database", "folder"],
)
def test_what_cannot_be_done_is_told(
    recording: Path, arguments: list[str], code: int, words: str
) -> None:
    ran = bench(*(each.replace("{rec}", str(recording)) for each in arguments))
    assert ran.returncode == code, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("statekeep: error: ")
    assert words in last
    assert "hunter2" not in ran.stderr
    assert "Traceback" not in ran.stderr


def real_trajectories() -> Path | None:
    """Recorded conversations of a real agent, which no checkout holds."""
    named = os.environ.get("STATEKEEP_TRAJECTORIES")
    if named:
        return Path(named)
    return next(iter(sorted((ROOT.parent / "shared" / "data").glob("*.jsonl.gz"))), None)


@pytest.mark.timeout(600)
def test_real_conversations_take_40_to_60_percent_fewer_snapshots() -> None:
    path = real_trajectories()
    if path is None:
        pytest.skip(
            "NO REAL TRAJECTORIES: name a file in STATEKEEP_TRAJECTORIES to replay them here"
        )
    told = report(bench("replay", path, "-o", "json", timeout_s=500))
    assert told["lost"] == told["oracle_differences"] == 0
    assert 40 <= told["comparison"]["around"]["snapshots_fewer_percent"] <= 60
    assert told["streams"]["after"]["optimized"]["skipped"] == 0
