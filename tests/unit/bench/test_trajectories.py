"""Recorded conversations: written and read back, and every fault named with its line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from statekeep_server.bench.record import record
from statekeep_server.bench.trajectories import (
    Trajectory,
    TrajectoryError,
    read_trajectories,
    write_trajectories,
)

GOOD = {"trajectory_id": "t-1", "reward": 1, "messages": [{"role": "user", "content": "hé"}]}


def write_lines(path: Path, *lines: str | bytes) -> Path:
    with gzip.open(path, "wb") as file:
        for line in lines:
            file.write((line if isinstance(line, bytes) else line.encode()) + b"\n")
    return path


def changed(**changes: Any) -> str:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value != ...})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rec.jsonl.gz"
    recorded = tuple(record(runs=3, steps=12, seed=4))
    assert write_trajectories(path, recorded) == 3
    assert read_trajectories(path) == recorded
    assert read_trajectories(path, limit=2) == recorded[:2]
    assert [each.name for each in tmp_path.iterdir()] == ["rec.jsonl.gz"]


def test_equal_work_gives_equal_bytes_under_any_name(tmp_path: Path) -> None:
    one, other = tmp_path / "one.gz", tmp_path / "other.gz"
    write_trajectories(one, record(runs=2, steps=10, seed=1))
    write_trajectories(other, record(runs=2, steps=10, seed=1))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[4:8] == bytes(4)  # gzip's place for the time of writing
    assert len({each.trajectory_id for each in record(runs=2, steps=10, seed=1)}) == 2


def test_a_recording_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    def breaking() -> Any:
        yield Trajectory("t-1", 1.0, ())
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_trajectories(tmp_path / "rec.gz", breaking())
    assert not list(tmp_path.iterdir())


def test_empty_lines_do_not_matter_and_unknown_fields_neither(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "f.gz", "", changed(model="m"), "  ", changed(trajectory_id="b"))
    assert [each.trajectory_id for each in read_trajectories(path)] == ["t-1", "b"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: not JSON"),
        (b"\xff\xfe", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[]", "line 2: not a JSON object"),
        (changed(trajectory_id=...), "line 2: trajectory_id is missing"),
        (changed(trajectory_id=7), "line 2: trajectory_id is not a text"),
        (changed(trajectory_id=""), "line 2: trajectory_id is empty"),
        (changed(trajectory_id="t-1"), "line 2: trajectory_id 't-1' comes twice"),
        (changed(trajectory_id="b", reward=...), "line 2: reward is missing"),
        (changed(trajectory_id="b", reward="1"), "line 2: reward is not a number"),
        (changed(trajectory_id="b", reward=True), "line 2: reward is not a number"),
        (changed(trajectory_id="b", messages={}), "line 2: messages is not a list"),
        (
            changed(trajectory_id="b", messages=[{"role": "user"}, {"role": "robot"}]),
            r"line 2: messages\[1\] has no role of assistant, system, tool, user",
        ),
        (changed(trajectory_id="b", messages=["hi"]), r"line 2: messages\[0\] has no role"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str | bytes, problem: str) -> None:
    path = write_lines(tmp_path / "f.gz", changed(), line)
    with pytest.raises(TrajectoryError, match=problem):
        read_trajectories(path)


def test_a_line_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statekeep_server.bench.trajectories.MAX_LINE_BYTES", 1_000)
    path = write_lines(tmp_path / "f.gz", " " * 1_001)
    with pytest.raises(TrajectoryError, match="line 1: longer than 1000 bytes"):
        read_trajectories(path)


def test_a_file_that_is_none_is_told_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "missing.gz"
    with pytest.raises(TrajectoryError, match=r"cannot read .*missing\.gz: No such file"):
        read_trajectories(missing)
    plain = tmp_path / "plain.gz"
    plain.write_text(changed())
    with pytest.raises(TrajectoryError, match=r"cannot read .*plain\.gz: Not a gzipped file"):
        read_trajectories(plain)
    torn = tmp_path / "torn.gz"
    torn.write_bytes(write_lines(tmp_path / "whole.gz", changed()).read_bytes()[:-12])
    with pytest.raises(TrajectoryError, match=r"cannot read .*torn\.gz: Compressed file ended"):
        read_trajectories(torn)
    empty = write_lines(tmp_path / "empty.gz")
    with pytest.raises(TrajectoryError, match="holds no trajectory"):
        read_trajectories(empty)
    with pytest.raises(TrajectoryError, match="Is a directory"):
        read_trajectories(tmp_path)
