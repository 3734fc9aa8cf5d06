"""The pictures of the dashboards: places, values, and a drawing from answers made up here."""

import itertools
import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import ROOT
from tools.dashboards.answers import Line, Recording, Window, lines
from tools.dashboards.build import FOLDER, PAGE
from tools.dashboards.layout import MARGIN, Box, lay_out
from tools.dashboards.units import COUNTED, log_ticks, ticks, time_ticks, written
from tools.private_prometheus import Series

WINDOW = Window(begin_s=1000.0, end_s=1060.0, step_s=2.0, rate="10s")
BOARDS = ("overview", "saves", "database", "fleet")
PICTURED = ("overview", "saves")


def board(name: str) -> dict[str, Any]:
    """Read a dashboard that is committed."""
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return read


def apart(one: Box, other: Box) -> bool:
    """Tell whether two places have nothing in common."""
    return (
        one.right <= other.left
        or other.right <= one.left
        or one.bottom <= other.top
        or other.bottom <= one.top
    )


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_a_place_or_is_named(name: str) -> None:
    layout = lay_out(board(name))
    placed = [card.panel["title"] for card in (*layout.headings, *layout.cards)]
    assert sorted(placed + list(layout.not_drawable)) == sorted(
        panel["title"] for panel in board(name)["panels"]
    )


@pytest.mark.parametrize("name", PICTURED)
def test_what_is_pictured_can_be_drawn_as_a_whole(name: str) -> None:
    assert not lay_out(board(name)).not_drawable


def test_a_kind_that_cannot_be_drawn_is_named() -> None:
    assert list(lay_out(board("fleet")).not_drawable) == ["Path"]


@pytest.mark.parametrize("name", BOARDS)
def test_no_two_places_overlap_and_none_leaves_the_picture(name: str) -> None:
    layout = lay_out(board(name))
    boxes = [card.box for card in (*layout.headings, *layout.cards)]
    assert all(itertools.starmap(apart, itertools.combinations(boxes, 2)))
    for box in boxes:
        assert box.left >= MARGIN
        assert box.right <= layout.width - MARGIN + 0.01
        assert box.bottom <= layout.height


@pytest.mark.parametrize("name", PICTURED)
def test_every_unit_can_be_written(name: str) -> None:
    for card in lay_out(board(name)).cards:
        if card.panel["type"] != "heatmap":
            assert written(1.0, card.panel["fieldConfig"]["defaults"]["unit"])


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0, "ops", "0 ops/s"),
        (123.4, "ops", "123 ops/s"),
        (1234.0, "wps", "1.23 K wr/s"),
        (0.4567, "percentunit", "45.7%"),
        (1.0, "percentunit", "100%"),
        (0.0, "s", "0 s"),
        (0.00123, "s", "1.23 ms"),
        (0.00001, "s", "10 µs"),
        (90.0, "s", "1.5 mins"),
        (7.0, "short", "7"),
        (1536.0, "bytes", "1.5 KiB"),
    ],
)
def test_values_are_written_with_their_unit(value: float, unit: str, expected: str) -> None:
    assert written(value, unit) == expected


def test_an_unknown_unit_is_an_error() -> None:
    assert "lightyears" not in COUNTED
    with pytest.raises(KeyError):
        written(1.0, "lightyears")


@pytest.mark.parametrize("most", [0.00031, 0.2, 1.0, 7.0, 99.0, 1234.0])
def test_ticks_are_round_and_reach_the_greatest(most: float) -> None:
    places = ticks(most)
    assert places[0] == 0
    assert places[-2] < most <= places[-1] * (1 + 1e-9)
    assert 3 <= len(places) <= 6


def test_an_axis_of_zeros_has_a_height() -> None:
    assert ticks(0.0) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0.003, 0.04, [0.002, 0.005, 0.01, 0.02, 0.05]),
        (0.005, 0.4, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
        (0.005, 1.4, [0.001, 0.01, 0.1, 1.0, 10.0]),
        (0.003, 40.0, [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]),
        (0.01, 0.01, [0.01, 0.1]),
    ],
)
def test_a_logarithmic_axis_has_few_round_places(
    least: float, most: float, expected: list[float]
) -> None:
    assert log_ticks(least, most) == expected


def test_times_are_whole_and_few() -> None:
    assert time_ticks(180.0, wanted=6) == [0, 30, 60, 90, 120, 150, 180]
    assert time_ticks(180.0, wanted=5) == [0, 60, 120, 180]


@dataclass
class Canned:
    """Answers every query alike, and keeps what was asked."""

    series: tuple[Series, ...]
    asked: list[str]

    def between(
        self, query: str, begin_s: float, end_s: float, step_s: float
    ) -> tuple[Series, ...]:
        """Answer, and remember."""
        assert (begin_s, end_s, step_s) == (WINDOW.begin_s, WINDOW.end_s, WINDOW.step_s)
        self.asked.append(query)
        return self.series


def canned(*series: Series) -> Canned:
    """Answer with these, or with lines that fit every panel."""
    points = tuple((1000.0 + 2 * index, 0.01 + index % 7) for index in range(31))
    labels = ({"le": "0.005"}, {"le": "0.01"}, {"le": "+Inf"})
    names = {"outcome": "SKIPPED", "path": "STANDARD", "reason": "FIRST_SAVE"}
    several = tuple(
        Series(bound | names, tuple((at_s, value * factor) for at_s, value in points))
        for factor, bound in enumerate(labels, start=1)
    )
    return Canned(series or several, [])


PANEL = {
    "targets": [
        {
            "expr": 'a{job=~"$job", instance=~"$instance"}[$__rate_interval]',
            "legendFormat": "{{b}}!",
        }
    ]
}


def test_a_panel_asks_for_all_servers() -> None:
    answers = canned()
    lines(PANEL, answers, WINDOW)
    assert answers.asked == ['a{job=~".+", instance=~".+"}[10s]']


def test_a_line_has_its_name_and_its_gaps() -> None:
    answers = canned(
        Series({"b": "some"}, ((1002.0, 5.0), (1006.0, math.nan), (1058.0, 6.0))),
        Series({"b": "nothing"}, ((1002.0, math.nan),)),
    )
    (line,) = lines(PANEL, answers, WINDOW)
    assert line.name == "some!"
    assert line.last == 6.0
    known = {index: value for index, value in enumerate(line.values) if math.isfinite(value)}
    assert known == {1: 5.0, 29: 6.0}
    assert len(line.values) == WINDOW.points == 31


def test_a_recording_says_again_what_was_said(tmp_path: Path) -> None:
    recording = Recording(WINDOW, source=canned())
    first = lines(PANEL, recording, WINDOW)
    recording.write(tmp_path / "said.json")
    read = Recording.read(tmp_path / "said.json")
    assert read.window == WINDOW
    assert lines(PANEL, read, read.window) == first
    assert all(isinstance(line, Line) for line in first)


def recorded(folder: Path, answers: Canned) -> Path:
    """Write a recording in which every panel had these answers."""
    recording = Recording(WINDOW, source=answers)
    for name in PICTURED:
        for card in lay_out(board(name)).cards:
            lines(card.panel, recording, WINDOW)
    path = folder / "recording.json"
    recording.write(path)
    return path


def drawn(recording: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let `make dashboard-picture` draw a recording, in the environment that it uses."""
    python = ROOT / ".venv-bench" / "bin" / "python"
    if not python.exists():
        pytest.skip("matplotlib is missing: it is in .venv-bench, which `make bench` makes")
    module = (python, "-m", "tools.dashboards.picture", "--again")
    places = ("--recording", recording, "--pictures", folder)
    return subprocess.run(
        [*module, *places], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    )


def test_recordings_are_drawn(tmp_path: Path) -> None:
    said = drawn(recorded(tmp_path, canned()), tmp_path)
    assert not said.stderr
    for name in PICTURED:
        data = (tmp_path / f"dashboard-{name}.png").read_bytes()
        layout = lay_out(board(name))
        assert data.startswith(b"\x89PNG")
        size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])  # as every PNG begins
        assert size == (layout.width * 2, layout.height * 2)


def test_panels_without_an_answer_are_named(tmp_path: Path) -> None:
    said = drawn(recorded(tmp_path, Canned((), [])), tmp_path)
    for name in PICTURED:
        for card in lay_out(board(name)).cards:
            assert card.panel["title"] in said.stderr


def test_the_docs_show_pictures_that_are_there_and_small() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in PICTURED:
        assert f"](pictures/dashboard-{name}.png)" in page
        size = (PAGE.parent / "pictures" / f"dashboard-{name}.png").stat().st_size
        assert size < 300_000
