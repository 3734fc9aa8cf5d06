"""Tours: made in different ways, each of all stops; variations change one thing."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.bench import tools, tours
from statekeep_server.bench.city import DEPOT, first_day

STOPS = st.lists(st.sampled_from("ABCDEFGH"), unique=True, max_size=7)


def legs(stops: Sequence[str]) -> dict[str, dict[str, int]]:
    every = [DEPOT, *stops]
    return {a: {b: 60 * abs(i - j) for j, b in enumerate(every)} for i, a in enumerate(every)}


def crossings(tour: Sequence[str]) -> int:
    """A cost that has a best order: how many pairs are not in alphabetical order."""
    return sum(a > b for i, a in enumerate(tour) for b in tour[i + 1 :])


@given(stops=STOPS)
def test_every_way_visits_every_stop_once(stops: list[str]) -> None:
    due_s = {stop: ord(stop) % 3 for stop in stops}
    for tour in (
        tours.by_nearest(stops, legs(stops)),
        tours.by_due(stops, due_s),
        tours.by_insertion(stops, crossings),
        tours.by_insertion(stops, crossings, stops[:2]),
    ):
        assert sorted(tour) == sorted(stops)


@given(stops=STOPS)
def test_variations_visit_the_same_stops_in_another_order(stops: list[str]) -> None:
    found = set(tours.variations(stops)) - {tuple(stops)}
    assert all(sorted(tour) == sorted(stops) for tour in found)
    assert bool(found) == (len(stops) > 1)
    assert all(tuple(stops) in set(tours.variations(tour)) for tour in found)


def test_the_most_promising_come_first() -> None:
    found = tours.most_promising(("B", "A", "C"), crossings, 2)
    assert found[0] == ("A", "B", "C")
    assert len(found) == 2
    assert ("B", "A", "C") not in found


def test_stops_are_put_where_they_cost_least() -> None:
    assert tours.by_insertion(["C", "A", "B"], crossings) == ("A", "B", "C")


def test_a_guess_is_the_drive_where_the_legs_are_true() -> None:
    """On a quiet day the measured legs are the real ones."""
    day = first_day(7)
    stops = sorted(day.parcels)
    legs_s = {stop: tools.measure_legs(day, {"stop": stop})["legs_s"] for stop in [DEPOT, *stops]}
    parcels = {stop: tools.look_up_parcel(day, {"parcel_id": stop}) for stop in stops}
    assert tools.estimate(stops, legs_s, parcels) == tools.drive_tour(day, {"tour": stops})["cost"]


def test_a_parcel_that_is_not_there_is_an_answer_too() -> None:
    assert tools.look_up_parcel(first_day(7), {"parcel_id": "P-none"}) == {
        "error": "there is no such parcel"
    }
