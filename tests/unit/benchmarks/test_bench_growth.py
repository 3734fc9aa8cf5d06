"""How the cost of a save grows: every value that is measured has its place, and is shown."""

import pytest

from benchmarks import growth
from benchmarks.bench import Plan
from benchmarks.growth import AXES, render_growth
from benchmarks.load import Spec
from benchmarks.measurements import Measurement, Rounds
from benchmarks.report import render_contenders
from benchmarks.scenarios.growth import HISTORY_RUNS, points_of


def measured() -> Rounds:
    rounds = Rounds()
    for place, (contender, concurrency) in enumerate(
        dict.fromkeys((name, at) for axis in AXES for _, name, at in axis.points)
    ):
        for number in range(2):
            rounds.add(
                Measurement(
                    contender=contender,
                    concurrency=concurrency,
                    round_number=number,
                    values={
                        "rate": 100.0 + number,
                        "p50_us": 1_000.0 * (place + 1),
                        "p99_us": 9_000.0,
                        "server_us": 200.0,
                        "database_us": 50.0,
                    },
                )
            )
    return rounds


def test_every_value_of_every_axis_is_a_row() -> None:
    lines = render_growth(measured()).splitlines()
    assert len(lines) - 2 == sum(len(axis.points) for axis in AXES)
    first = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert first == [AXES[0].title, "1,024", "100.5", "1", "9", "200", "50", "-"]


def test_what_was_not_measured_is_left_out() -> None:
    assert not render_growth(Rounds())


def test_growth_is_not_told_twice() -> None:
    assert "growth" not in render_contenders(measured())


def test_every_history_has_runs() -> None:
    assert set(HISTORY_RUNS) == set(growth.HISTORIES)
    assert max(runs * versions for versions, runs in HISTORY_RUNS.items()) <= 20_000


def test_a_full_run_measures_every_value_of_every_axis() -> None:
    points = list(points_of(Plan()))
    wanted = {(name, at) for axis in AXES for _, name, at in axis.points}
    assert {(point.contender, point.concurrency) for point in points} == wanted
    assert len(points) == len(wanted)


def test_a_first_look_has_no_long_histories() -> None:
    contenders = {point.contender for point in points_of(Plan(scale=0.2))}
    assert growth.by_history(1_000) in contenders
    assert growth.by_history(10_000) not in contenders


def test_the_load_process_understands_every_point() -> None:
    for point in points_of(Plan()):
        Spec(
            kind="save",
            port=1,
            path="",
            concurrency=point.concurrency,
            recording="",
            **{"prefix": "", **point.spec},
        )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1, "1"), (256, "256"), (1_000, "1k"), (10_000, "10k"), (1_024, "1 kB"), (1 << 20, "1 MB")],
)
def test_numbers_are_short_below_a_picture(value: int, shown: str) -> None:
    assert growth.short(value) == shown
