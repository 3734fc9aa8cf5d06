"""Targets: ratios within a round, their median and spread, and what counts as met."""

import pytest

from benchmarks.__main__ import crowded
from benchmarks.beside import BESIDE
from benchmarks.measurements import Key, Measurement, Rounds
from benchmarks.targets import TARGETS, Target, evaluate


def measured(contender: str, number: int, rate: float, concurrency: int = 64) -> Measurement:
    return Measurement(
        contender=contender,
        concurrency=concurrency,
        round_number=number,
        values={"rate": rate},
    )


def target(**changes: object) -> Target:
    values: dict[str, object] = {
        "name": "ours : theirs",
        "concurrency": "64",
        "bound": "at least",
        "limit": 2.0,
        "numerator": Key("ours", concurrency=64),
        "denominators": (Key("theirs", concurrency=64),),
    }
    return Target(**(values | changes))  # type: ignore[arg-type]  # each by its name


def test_a_ratio_is_made_within_a_round() -> None:
    # Between the rounds the machine became three times as fast: no ratio may mix them.
    rounds = Rounds(
        [
            measured("ours", 0, 200),
            measured("theirs", 0, 100),
            measured("ours", 1, 660),
            measured("theirs", 1, 300),
            measured("ours", 2, 900),
            measured("theirs", 2, 300),
        ]
    )
    outcome = evaluate(target(), rounds, {})
    assert outcome.measured == pytest.approx(2.2)
    assert outcome.spread == pytest.approx((2.0, 3.0))
    assert outcome.met


def test_a_round_without_one_side_does_not_count() -> None:
    rounds = Rounds(
        [measured("ours", 0, 100), measured("theirs", 0, 100), measured("ours", 1, 900)]
    )
    assert evaluate(target(), rounds, {}).measured == 1.0


def test_another_concurrency_is_another_number() -> None:
    rounds = Rounds([measured("ours", 0, 100), measured("theirs", 0, 100, concurrency=16)])
    assert evaluate(target(), rounds, {}).measured is None


@pytest.mark.parametrize(
    ("bound", "ratio", "met"),
    [
        ("at least", 2.0, True),
        ("at least", 1.99, False),
        ("at most", 2.0, True),
        ("at most", 2.01, False),
    ],
)
def test_the_limit_itself_is_enough(bound: str, ratio: float, met: bool) -> None:
    rounds = Rounds([measured("ours", 0, ratio * 100), measured("theirs", 0, 100)])
    assert evaluate(target(bound=bound), rounds, {}).met is met


def test_what_was_not_measured_is_not_met_and_says_why() -> None:
    rounds = Rounds([measured("ours", 0, 100)])
    outcome = evaluate(target(), rounds, {"theirs": "not available yet"})
    assert (outcome.measured, outcome.met, outcome.why) == (None, False, "not available yet")
    assert outcome.to_json()["measured"] is None


def test_the_best_rival_counts_and_missing_ones_do_not() -> None:
    rivals = tuple(Key(name, concurrency=64) for name in ("theirs", "others", "absent"))
    rounds = Rounds(
        [measured("ours", 0, 300), measured("theirs", 0, 100), measured("others", 0, 200)]
    )
    assert evaluate(target(denominators=rivals, best=True), rounds, {}).measured == 1.5
    assert evaluate(target(denominators=rivals), rounds, {}).measured is None


def test_costs_are_added_up() -> None:
    rivals = (Key("theirs", concurrency=64), Key("others", concurrency=64))
    rounds = Rounds(
        [measured("ours", 0, 600), measured("theirs", 0, 100), measured("others", 0, 200)]
    )
    assert evaluate(target(denominators=rivals), rounds, {}).measured == 2.0


def test_a_share_stands_for_itself() -> None:
    outcome = evaluate(
        target(denominators=(), limit=0.6, unit="%"), Rounds([measured("ours", 0, 0.7)]), {}
    )
    assert (outcome.measured, outcome.met, outcome.target.wanted) == (0.7, True, "at least 60 %")


def test_a_rival_that_did_nothing_gives_no_ratio() -> None:
    rounds = Rounds([measured("ours", 0, 100), measured("theirs", 0, 0)])
    assert evaluate(target(), rounds, {}).measured is None


def test_every_row_has_its_concurrency_and_occurs_once() -> None:
    names = [(each.name, each.concurrency) for each in TARGETS]
    assert all(name and concurrency for name, concurrency in names)
    assert len(set(names)) == len(names)


def beside_others(contender: str, number: int, foreign_cores: float) -> Measurement:
    return Measurement(
        contender=contender,
        concurrency=64,
        round_number=number,
        values={"rate": 1.0, "foreign_cores": foreign_cores},
    )


def test_a_crowded_round_is_named_by_the_run_and_by_every_ratio_of_it() -> None:
    rounds = Rounds(
        [
            beside_others("ours", 0, 0.1),
            beside_others("theirs", 0, 0.2),
            beside_others("ours", 1, 0.0),
            beside_others("theirs", 1, 1.4),
            beside_others("others", 2, 0.9),
        ]
    )
    told = crowded(rounds)
    assert [line.partition(" was")[0] for line in told] == ["round 2", "round 3"]
    assert "during 1 of 2 measurements" in told[0]
    outcome = evaluate(target(), rounds, {})
    assert (outcome.rounds, outcome.crowded) == (2, (1,))
    assert outcome.to_json()["crowded_rounds"] == [2]


def test_a_quiet_machine_is_no_cause_for_doubt() -> None:
    assert not crowded(Rounds([beside_others("ours", 0, 0.1)]))
    assert not crowded(Rounds())


def test_each_side_of_a_ratio_without_target_is_named_once() -> None:
    names = [(each.name, each.concurrency) for each in (*BESIDE, *TARGETS)]
    assert len(set(names)) == len(names)


TARGETS_OF_THE_ISSUE = [
    ("durable saves/s : ORM session per save", "64", "at least 9 ×"),
    ("durable saves/s : our standard path", "256", "at least 2 ×"),
    ("standard path's saves/s : ORM session per save", "64", "at least 3 ×"),
    ("durable saves/s : echo", "256", "at least 0.45 ×"),
    ("durable saves/s, compression and telemetry off : echo", "64", "at least 0.55 ×"),
    ("skipped saves/s : echo", "64", "at least 0.6 ×"),
    ("loads/s of a recent state : echo", "256", "at least 0.5 ×"),
]


@pytest.mark.parametrize(("name", "concurrency", "wanted"), TARGETS_OF_THE_ISSUE)
def test_the_targets_are_those_that_were_promised(name: str, concurrency: str, wanted: str) -> None:
    (found,) = [row for row in TARGETS if (row.name, row.concurrency) == (name, concurrency)]
    assert found.wanted == wanted


def test_what_is_compared_with_the_echo_is_not_compared_with_itself() -> None:
    """The numerator of the row without compression is the server without compression."""
    (row, _) = [row for row in TARGETS if "compression" in row.name]
    assert row.numerator.contender == "save_plain"
    assert [key.contender for key in row.denominators] == ["echo"]
