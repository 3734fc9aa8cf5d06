"""The demo's city: A* finds the earliest arrival, also where streets are closed."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statekeep_server.bench.city import (
    HEIGHT,
    OPENING_S,
    WIDTH,
    City,
    Closure,
    clock_time,
    day_after,
    first_day,
    hear_news,
)

CROSSINGS = st.integers(min_value=0, max_value=WIDTH * HEIGHT - 1)


def earliest_s(city: City, start: int, goal: int, depart_s: int) -> int:
    """Dijkstra over the list of streets, which shares nothing with the search under test."""
    queue, seen = [(depart_s, start)], set()
    while True:
        at_s, crossing = heapq.heappop(queue)
        if crossing == goal:
            return at_s
        if crossing in seen:
            continue
        seen.add(crossing)
        for street, takes_s in city.street_s.items():
            if crossing in street:
                other = street[0] if street[1] == crossing else street[1]
                heapq.heappush(queue, (city.leave_s(street, at_s) + takes_s, other))


@given(
    seed=st.integers(min_value=0, max_value=50),
    events=st.integers(min_value=0, max_value=12),
    start=CROSSINGS,
    goal=CROSSINGS,
    after_s=st.integers(min_value=0, max_value=6 * 3_600),
)
@settings(max_examples=40, deadline=None)
def test_no_route_arrives_earlier(
    seed: int, events: int, start: int, goal: int, after_s: int
) -> None:
    city = day_after(seed, events).city
    depart_s = OPENING_S + after_s
    route = city.route(start, goal, depart_s)
    assert route.arrive_s == earliest_s(city, start, goal, depart_s)
    assert (route.crossings[0], route.crossings[-1]) == (start, goal)


def test_a_route_takes_the_time_of_its_streets() -> None:
    city = first_day(1).city
    route = city.route(0, WIDTH * HEIGHT - 1, OPENING_S)
    streets = zip(route.crossings, route.crossings[1:], strict=False)
    assert route.arrive_s - OPENING_S == sum(
        city.street_s[min(pair), max(pair)] for pair in streets
    )


def test_a_van_waits_before_a_closed_street_through_all_closures_in_a_row() -> None:
    street = (0, 1)
    closures = (
        Closure(street=street, from_s=200, until_s=300),
        Closure(street=street, from_s=100, until_s=200),
    )
    city = City(depot=0, street_s={street: 20}, closures=closures)
    assert city.leave_s(street, 99) == 99
    assert city.leave_s(street, 100) == 300
    assert city.leave_s(street, 299) == 300
    assert city.leave_s(street, 300) == 300
    assert city.leave_s((1, 2), 150) == 150


@pytest.mark.parametrize("events", [0, 1, 7, 30])
def test_the_news_of_a_day_can_be_heard_again(events: int) -> None:
    day = first_day(11)
    for _ in range(events):
        day = hear_news(day).day
    assert day == day_after(11, events)
    assert day.events == events
    assert 6 <= len(day.parcels) <= 14


def test_a_time_of_day_reads_as_people_write_it() -> None:
    assert clock_time(8 * 3_600 + 5 * 60 + 59) == "08:05"
