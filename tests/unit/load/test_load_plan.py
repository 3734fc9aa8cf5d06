"""A plan is checked before anything is started."""

from pathlib import Path

import pytest

from load.plan import PLAN, PlanError, read_plan


def test_the_plan_of_the_project_can_be_followed() -> None:
    plan = read_plan()
    assert plan.concurrency == (16, 64)
    assert plan.rounds % 2 == 1  # a median of two is no measured value


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds = 3", "", "rounds"),
        ("rounds = 3", "rounds = 3\ncolour = 1", "colour"),
        ("rounds = 3", "rounds = 0", "rounds must be positive"),
        ("rounds = 3", 'rounds = "3"', "rounds must be positive"),
        ("concurrency = [16, 64]", "concurrency = []", "concurrency must be positive"),
        ("save = 1\n", "", "mixed needs"),
        ("state_bytes = 10240", "state_bytes = 100", "at least 512"),
        ("share = 0.5", "share = -1", "open_loop_share must be positive"),
        ("rounds = 3", "rounds =", "cannot read"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = PLAN.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "plan.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(PlanError, match=said):
        read_plan(path)


def test_a_missing_plan_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read"):
        read_plan(tmp_path / "none.toml")
