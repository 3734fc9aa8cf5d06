"""The recording that `make bench` and `make soak` work on, where nobody names one."""

from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from statekeep_server.bench.trajectories import read_trajectories


def test_it_is_made_where_the_makefile_names_it_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    made = bench.recording_of(Path("build/recording.jsonl.gz"))
    assert made == tmp_path / "build" / "recording.jsonl.gz"
    assert list(read_trajectories(made, limit=1))


def test_another_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot read"):
        bench.recording_of(tmp_path / "mine.jsonl.gz")
    assert not any(tmp_path.iterdir())
