"""What a load run reports, and when it has failed."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from load.ghz import Seen
from load.html import by_scenario, index_page, scenario_page
from load.page import make_page
from load.rounds import CLOSED, OPEN, Counts, Measurement, Step, expected_counts, find_faults
from load.summary import (
    NoBaseline,
    Row,
    against_dapr,
    for_bench,
    read_baseline,
    summarise,
    to_json,
)

ABOUT = {
    "version": "1",
    "commit": "abc",
    "machine": "2 cores",
    "load_average": 0.0,
    "postgresql": "18",
    "ghz": "ghz v1",
    "plan": {"rounds": 3, "connections": 8, "state_bytes": 10_240},
}


def seen(ok: int, *, failed: int = 0, duration_s: float = 1.0) -> Seen:
    return Seen(
        duration_s=duration_s,
        statuses={"OK": ok} | ({"Unavailable": failed} if failed else {}),
        errors={"rpc error: <gone>": failed} if failed else {},
        ended_s=[float(number) for number in range(ok)],
        latency_ms=[1.0 + number for number in range(ok)],
    )


def measured(name: str, number: int, rate: int, **changes: Any) -> Measurement:
    given: dict[str, Any] = {"loop": CLOSED, "concurrency": 16, "seen": seen(rate)}
    return Measurement(name=name, round=number, **given | changes)


MEASURED = [
    *(measured("echo", number, rate) for number, rate in enumerate((100, 400, 200))),
    *(measured("save", number, rate) for number, rate in enumerate((50, 100, 120))),
    *(measured("dapr", number, rate) for number, rate in enumerate((25, 100, 60))),
    measured("save", 0, 10, loop=OPEN, rps=20),
]


def row(name: str, loop: str = CLOSED) -> Row:
    (found,) = [each for each in summarise(MEASURED) if (each.name, each.loop) == (name, loop)]
    return found


def page(**changes: Any) -> str:
    given: dict[str, Any] = {"about": ABOUT, "baseline": None, "faults": []}
    return make_page(summarise(MEASURED), against_dapr(MEASURED), **given | changes)


def test_ratios_are_taken_inside_a_round() -> None:
    share = row("save").to_echo
    assert share is not None
    assert (share.least, share.median, share.most) == (0.25, 0.5, 0.6)
    assert row("save").rate.median == 100
    assert row("echo").to_echo is None


def test_dapr_is_compared_inside_a_round() -> None:
    (versus,) = against_dapr(MEASURED)
    assert (versus.ratio.least, versus.ratio.median, versus.ratio.most) == (1.0, 2.0, 2.0)
    assert "Dapr sidecar, 16 concurrent: 2.00 (1.00-2.00)" in page()


def test_loops_are_not_mixed_up() -> None:
    assert row("save", OPEN).calls == 10
    assert row("save").calls == 270
    assert row("save", OPEN).to_echo is None


def test_an_open_loop_that_fell_behind_says_so() -> None:
    assert "fell behind" in page()


def test_parts_of_a_mix_are_not_compared_with_an_echo_that_was_alone() -> None:
    rows = summarise([*MEASURED, measured("mixed: save", 0, 9), measured("mixed", 0, 30)])
    shares = {each.name: each.to_echo for each in rows}
    assert shares["mixed: save"] is None
    assert shares["mixed"] is not None


def test_a_clean_run_says_so_and_a_fault_does_not() -> None:
    assert "Every call was OK" in page()
    failed = page(faults=["round 1: save: 3 calls"])
    assert "FAILED" in failed
    assert "round 1: save: 3 calls" in failed
    assert "Every call was OK" not in failed


def test_a_busy_machine_is_told() -> None:
    assert "Do not trust" not in page()
    assert "Do not trust" in page(about=ABOUT | {"load_average": 3.0})


def test_every_status_that_is_not_ok_is_a_fault() -> None:
    step = Step(loop=CLOSED, concurrency=16, round=1, calls=10)
    assert list(find_faults(step, {"save": seen(10)})) == []
    (fault,) = find_faults(step, {"save": seen(7, failed=3)})
    assert fault == (
        "round 2, closed, 16 concurrent: save: 3 of 10 calls: Unavailable: rpc error: <gone>"
    )
    (fault,) = find_faults(step, {"save": seen(0)})
    assert "no call was answered" in fault


def test_the_server_must_count_what_ghz_saw() -> None:
    expected = expected_counts({"save": seen(5), "skip": seen(7), "load": seen(9)})
    assert expected == Counts(persisted=5, skipped=7, loads=9, failures=0, fallbacks=0)
    assert expected_counts({"skip": seen(7)}) == Counts(0, 7, 0, 0, 0)
    before, after = Counts(1, 2, 3, 4, 5), Counts(6, 9, 12, 4, 5)
    assert after.since(before) == expected
    assert not expected.unlike(expected)
    assert (
        Counts(5, 6, 9, 1, 0).unlike(expected) == "skipped 6 instead of 7, failures 1 instead of 0"
    )


def test_a_report_is_its_own_baseline(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    rows = summarise(MEASURED)
    path.write_bytes(orjson.dumps(to_json(rows, [], about=ABOUT, faults=[])))
    baseline = read_baseline(path)
    assert set(baseline) == {each.key for each in rows}
    lines = page(baseline=baseline).splitlines()
    (save, _) = [line for line in lines if line.startswith("save ")]
    assert save.split()[-2:] == ["+0", "%"]
    assert "0.50" in save.split()[-3:]


def test_a_baseline_is_compared_by_shares_of_the_echo(tmp_path: Path) -> None:
    slower = [
        measured("echo", 0, 50),
        measured("save", 0, 20),
    ]
    path = tmp_path / "report.json"
    path.write_bytes(orjson.dumps(to_json(summarise(slower), [], about=ABOUT, faults=[])))
    lines = page(baseline=read_baseline(path)).splitlines()
    save = next(line for line in lines if line.startswith("save "))
    assert save.split()[-3:] == ["0.40", "+25", "%"]
    dapr = next(line for line in lines if line.startswith("dapr "))
    assert dapr.split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}'])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(NoBaseline):
        read_baseline(path)
    with pytest.raises(NoBaseline, match="cannot read"):
        read_baseline(tmp_path / "none.json")


def test_pages_show_what_failed_and_escape_what_servers_say() -> None:
    failed = measured("save", 3, 0, seen=seen(2, failed=1))
    rows = summarise([*MEASURED, failed, measured("mixed: save", 0, 9), measured("mixed", 0, 9)])
    pages = by_scenario(rows)
    assert set(pages) == {"save", "dapr", "echo", "mixed"}
    assert {each.name for each in pages["mixed"]} == {"mixed", "mixed: save"}
    html = scenario_page("save", pages["save"], about=ABOUT)
    assert "Unavailable" in html
    assert "&lt;gone&gt;" in html
    assert "<gone>" not in html
    index = index_page(rows, page="<page>", faults=["<fault>"])
    assert all(f'href="{name}.html"' in index for name in pages)
    assert "&lt;page&gt;" in index
    assert "&lt;fault&gt;" in index


def test_make_bench_gets_the_closed_loop() -> None:
    rounds = for_bench(MEASURED)["rounds"]
    assert len(rounds) == 9
    assert rounds[0] == {
        "contender": "ghz_echo",
        "concurrency": 16,
        "round_number": 0,
        "values": {"rate": 100.0},
    }
