"""The tables of a benchmark."""

from benchmarks.measurements import Key, Measurement, Rounds
from benchmarks.report import render_beside, render_contenders, render_sizes, render_targets, table
from benchmarks.targets import Target, evaluate

RATIO = Target(
    name="ours : theirs",
    concurrency="64",
    bound="at least",
    limit=2.0,
    numerator=Key("ours", concurrency=64),
    denominators=(Key("theirs", concurrency=64),),
)


def rounds_of(*rates: tuple[float, float]) -> Rounds:
    rounds = Rounds()
    for number, pair in enumerate(rates):
        for contender, rate in zip(("ours", "theirs"), pair, strict=True):
            rounds.add(
                Measurement(
                    contender=contender,
                    concurrency=64,
                    round_number=number,
                    values={"rate": rate, "p50_us": 1_500, "disk_bytes": 1_234_567},
                )
            )
    return rounds


def test_a_table_is_aligned() -> None:
    text = table(("what", "n"), [("a", "1"), ("long", "1,000")], right=(1,))
    assert text.splitlines() == [
        "| what |     n |",
        "| ---- | ----: |",
        "| a    |     1 |",
        "| long | 1,000 |",
    ]


def test_a_target_stands_beside_what_was_measured() -> None:
    outcome = evaluate(RATIO, rounds_of((300, 100), (250, 100), (500, 100)), {})
    row = render_targets([outcome]).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "ours : theirs",
        "64",
        "at least 2 ×",
        "3.00 ×",
        "2.50 × to 5.00 ×",
        "yes",
        "-",
    ]


def test_a_missing_row_shows_its_reason() -> None:
    outcome = evaluate(RATIO, Rounds(), {"ours": "not available yet"})
    row = render_targets([outcome]).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3:] == ["not available yet", "-", "no", "-"]


def test_what_was_measured_beside_the_targets_stands_apart() -> None:
    outcomes = [evaluate(RATIO, rounds_of((300, 100)), {}), evaluate(RATIO, Rounds(), {})]
    assert len(render_beside(outcomes).splitlines()) == 3
    assert not render_beside(outcomes[1:])


def test_contenders_show_medians_in_milliseconds() -> None:
    text = render_contenders(rounds_of((300, 100), (250, 100), (1_500, 100)))
    ours = next(line for line in text.splitlines() if line.startswith("| ours"))
    assert [cell.strip() for cell in ours.strip("|").split("|")][:4] == ["ours", "64", "300", "1.5"]


def test_sizes_name_what_was_weighed() -> None:
    assert "1,234,567" not in render_sizes(Rounds())
    line = render_sizes(rounds_of((1, 1))).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["ours", "disk", "1,234,567"]
