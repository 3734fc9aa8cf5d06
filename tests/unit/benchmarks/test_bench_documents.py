"""The page about performance shows what the last run measured, and nothing by hand."""

from pathlib import Path

import pytest

from benchmarks.documents import BEGIN, END, PAGE, replaced, section, write_sections
from tests.support.project import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def page_with(*names: str) -> str:
    return "# Page\n" + "".join(
        f"{BEGIN.format(name=n)}\nold\n{END.format(name=n)}\n" for n in names
    )


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = page_with("targets", "growth")
    new = replaced(page, "targets", "| new |")
    assert section(new, "targets") == "| new |"
    assert section(new, "growth") == "old"
    assert new.startswith("# Page\n")
    assert replaced(new, "targets", "| new |") == new


def test_what_was_not_measured_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(page_with("targets", "growth"))
    write_sections(page, {"targets": "| new |", "growth": ""})
    assert section(page.read_text(), "growth") == "old"
    assert section(page.read_text(), "targets") == "| new |"


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for 'targets'"):
        replaced("# Page", "targets", "")


def test_the_page_shows_the_targets_of_the_committed_results() -> None:
    shown = [line for line in section(PAGE.read_text(), "targets").splitlines() if line]
    assert sum(line.startswith("|") for line in shown) > 20
    assert not set(shown) - set((RESULTS / "latest.md").read_text().splitlines())


@pytest.mark.parametrize("name", ["targets", "beside", "growth"])
def test_the_page_has_a_place_for_everything(name: str) -> None:
    assert section(PAGE.read_text(), name)
