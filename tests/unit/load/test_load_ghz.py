"""What ghz is asked, and how its report is read."""

import asyncio
import stat
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest

from load.ghz import (
    OPTIONS,
    ROOT,
    GhzFailed,
    Order,
    Seen,
    histogram,
    parse_report,
    percentile,
    run_ghz,
    together,
)

EMPTY = {"total": 0, "statusCodeDistribution": {}, "errorDistribution": None, "details": None}


def order(**changes: Any) -> Order:
    given: dict[str, Any] = {
        "options": "save",
        "target": "127.0.0.1:1",
        "bodies": Path("bodies"),
        "calls": 10,
        "concurrency": 4,
        "connections": 8,
        "max_duration_s": 5,
    }
    return Order(**given | changes)


def call(second: int, latency_ms: float, status: str = "OK") -> dict[str, Any]:
    return {
        "timestamp": f"2024-05-15T08:00:{second:02}.123456789+02:00",
        "latency": round(latency_ms * 1e6),
        "error": "" if status == "OK" else "rpc error",
        "status": status,
    }


def seen(ended_s: list[float]) -> Seen:
    return Seen(
        duration_s=9.0,
        statuses={"OK": len(ended_s)},
        errors={},
        ended_s=ended_s,
        latency_ms=[1.0] * len(ended_s),
    )


@pytest.mark.parametrize("path", sorted(OPTIONS.glob("*.toml")), ids=lambda path: path.stem)
def test_option_files_load_loopback_with_prepared_bodies(path: Path) -> None:
    options = tomllib.loads(path.read_text(encoding="utf-8"))
    if path.stem == "plan":
        return
    assert options["disable-template-functions"]
    assert options["disable-template-data"]
    assert options["duration-stop"] == "wait"
    assert options["insecure"]
    assert (ROOT / options["proto"]).exists()
    assert "host" not in options


def test_the_closed_loop_is_bounded_by_its_calls() -> None:
    command = order().command(Path("ghz"), Path("out"))
    assert command[command.index("--total") + 1] == "10"
    assert command[command.index("--connections") + 1] == "4"
    assert "--async" not in command
    # With a duration, ghz would send more calls than there are bodies.
    assert not {"--duration", "--max-duration"} & set(command)


def test_the_open_loop_waits_for_no_answer() -> None:
    command = order(rps=300).command(Path("ghz"), Path("out"))
    assert "--async" in command
    assert command[command.index("--rps") + 1] == "300"


def test_a_report_is_read() -> None:
    read = parse_report(
        {
            "total": 2_000_000_000,
            "statusCodeDistribution": {"OK": 2, "Unavailable": 1},
            "errorDistribution": {"gone": 1},
            "details": [call(5, 3.0), call(1, 2.0), call(2, 9.0, "Unavailable")],
        }
    )
    assert (read.calls, read.ok, read.rate) == (3, 2, 1.0)
    assert read.errors == {"gone": 1}
    assert read.latency_ms == [2.0, 3.0]
    assert read.ended_s[1] - read.ended_s[0] == 4.0


def test_a_report_without_a_call_is_read() -> None:
    assert parse_report(EMPTY).rate == 0.0


def test_only_the_time_in_which_all_were_under_way_counts() -> None:
    both = together([seen([1.0, 2.0, 5.0]), seen([2.0, 3.0, 4.0, 9.0])])
    assert both.ended_s == [2.0, 2.0, 3.0, 4.0, 5.0]
    assert both.duration_s == 3.0


def test_what_never_overlapped_was_not_mixed() -> None:
    assert together([seen([1.0, 2.0]), seen([3.0, 4.0])]).ok == 0


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 50) == 7.0
    assert percentile([], 99) == 0.0


def test_a_histogram_holds_every_value() -> None:
    values = [0.0, 0.05, 0.1, 0.11, 1.0, 50.0, 50.0]
    buckets = histogram(values)
    assert sum(count for _, count in buckets) == len(values)
    for value in values:
        below = sum(count for bound, count in buckets if bound < value)
        assert below <= sum(each < value for each in values)
    assert histogram([]) == []


def fake_ghz(tmp_path: Path, script: str) -> Path:
    path = tmp_path / "ghz"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def test_what_ghz_says_before_it_fails_is_told(tmp_path: Path) -> None:
    ghz = fake_ghz(tmp_path, "echo cannot read the bodies >&2; exit 1")
    with pytest.raises(GhzFailed, match="cannot read the bodies"):
        await run_ghz(ghz, order(), tmp_path / "out")


async def test_ghz_is_asked_to_end_when_its_time_is_over(tmp_path: Path) -> None:
    report, output = tmp_path / "report", tmp_path / "out"
    report.write_bytes(orjson.dumps(EMPTY))
    ghz = fake_ghz(tmp_path, f"trap 'mv {report} {output}; exit' INT; while :; do sleep 0.01; done")
    read = await run_ghz(ghz, order(max_duration_s=3), output)
    assert read.calls == 0
    assert not output.exists()


async def test_ghz_does_not_outlive_a_cancelled_run(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    ghz = fake_ghz(tmp_path, f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 60")
    running = asyncio.create_task(run_ghz(ghz, order(), tmp_path / "out"))
    async with asyncio.timeout(30):
        while not pid.exists():
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
