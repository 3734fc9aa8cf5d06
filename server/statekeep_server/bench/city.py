"""The world of the demo agent: a city, its parcels, and the news of the day, all made from a seed.

The city is a grid of crossings. A street takes the same time in both directions and may be closed
for a while; a van that meets a closed street waits or drives round it. Since waiting is allowed,
who leaves earlier never arrives later, and A* finds the earliest arrival.

Times are whole seconds since midnight, weights whole kilograms.
"""

import heapq
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

WIDTH = 18
HEIGHT = 18
DEPOT = "depot"
OPENING_S = 8 * 3600
FASTEST_STREET_S = 20
SLOWEST_STREET_S = 90
FIRST_PARCELS = 9
FEWEST_PARCELS = 6
MOST_PARCELS = 14

_NOTES = (
    "ring twice, the bell of the second floor is loose",
    "leave it with the neighbour when nobody answers",
    "needs a signature of the person named on the label",
    "the gate is locked between noon and one o'clock",
    "call ten minutes ahead, there is no place to park",
    "heavy: use the trolley, the lift is out of order",
)

Street = tuple[int, int]
"""The two crossings that a street joins, the lower number first."""


def randomness(seed: int, label: str) -> random.Random:
    """A generator for one purpose, so that no draw depends on how often others drew."""
    return random.Random(f"{seed}/{label}")  # noqa: S311  # a toy world, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """A street that nobody may enter from `from_s` until `until_s`."""

    street: Street
    from_s: int
    until_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A parcel and where and when it is wanted."""

    parcel_id: str
    crossing: int
    weight_kg: int
    ready_s: int
    due_s: int
    note: str


@dataclass(frozen=True, slots=True)
class Route:
    """The fastest way between two crossings for one time of departure."""

    crossings: tuple[int, ...]
    arrive_s: int
    expanded: int
    """Crossings that the search looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    """Streets with their times, and what is closed when."""

    depot: int
    street_s: Mapping[Street, int]
    closures: tuple[Closure, ...] = field(default=())

    def leave_s(self, street: Street, at_s: int) -> int:
        """When a van that stands before a street at `at_s` may enter it."""
        moved = True
        while moved:
            moved = False
            for closure in self.closures:
                if closure.street == street and closure.from_s <= at_s < closure.until_s:
                    at_s, moved = closure.until_s, True
        return at_s

    def route(self, start: int, goal: int, depart_s: int) -> Route:
        """Find the earliest arrival with A*; every crossing of the grid can be reached."""
        best_s = {start: depart_s}
        came_from: dict[int, int] = {}
        waiting = [(depart_s + _at_least_s(start, goal), depart_s, start)]
        done: set[int] = set()
        while True:
            _, at_s, crossing = heapq.heappop(waiting)
            if crossing in done:
                continue
            done.add(crossing)
            if crossing == goal:
                return Route(_walk_back(came_from, goal), at_s, len(done))
            for neighbour in _neighbours(crossing):
                street = _street(crossing, neighbour)
                arrive_s = self.leave_s(street, at_s) + self.street_s[street]
                if arrive_s < best_s.get(neighbour, arrive_s + 1):
                    best_s[neighbour] = arrive_s
                    came_from[neighbour] = crossing
                    guess_s = arrive_s + _at_least_s(neighbour, goal)
                    heapq.heappush(waiting, (guess_s, arrive_s, neighbour))


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What is known at some moment of the day."""

    seed: int
    city: City
    parcels: Mapping[str, Parcel]
    events: int
    """How much news has come in."""

    def place(self, stop: str) -> int:
        """The crossing of the depot or of a parcel."""
        return self.city.depot if stop == DEPOT else self.parcels[stop].crossing


def first_day(seed: int) -> Day:
    """The day as it begins, before any news."""
    draw = randomness(seed, "city")
    street_s = {
        _street(crossing, neighbour): draw.randrange(FASTEST_STREET_S, SLOWEST_STREET_S)
        for crossing in range(WIDTH * HEIGHT)
        for neighbour in _neighbours(crossing)
        if crossing < neighbour
    }
    city = City(depot=_crossing(WIDTH // 2, HEIGHT // 2), street_s=street_s)
    parcels = [_parcel(seed, number, OPENING_S) for number in range(FIRST_PARCELS)]
    return Day(seed=seed, city=city, parcels={each.parcel_id: each for each in parcels}, events=0)


def day_after(seed: int, events: int) -> Day:
    """The day once `events` pieces of news have come in."""
    day = first_day(seed)
    for _ in range(events):
        day = hear_news(day).day
    return day


@dataclass(frozen=True, slots=True)
class News:
    """A piece of news: the day after it, the sentence that tells it, the parcel to look up."""

    day: Day
    told: str
    parcel_id: str | None = None


def hear_news(day: Day) -> News:
    """The next piece of news of a day."""
    draw = randomness(day.seed, f"news {day.events}")
    kinds = ["closure", "hurry"]
    if len(day.parcels) < MOST_PARCELS:
        kinds += ["parcel", "parcel"]
    if len(day.parcels) > FEWEST_PARCELS:
        kinds += ["cancelled"]
    kind = draw.choice(kinds)
    heard = replace(day, events=day.events + 1)
    if kind == "parcel":
        parcel = _parcel(day.seed, FIRST_PARCELS + day.events, OPENING_S + 3_600)
        told = f"One more parcel came in, {parcel.parcel_id}. Please fit it into the tour."
        more = {**day.parcels, parcel.parcel_id: parcel}
        return News(replace(heard, parcels=more), told, parcel.parcel_id)
    name = draw.choice(sorted(day.parcels))
    if kind == "cancelled":
        left = {key: parcel for key, parcel in day.parcels.items() if key != name}
        told = f"Parcel {name} is cancelled, the customer takes it at the counter."
        return News(replace(heard, parcels=left), told)
    if kind == "hurry":
        wanted = day.parcels[name]
        sooner = replace(wanted, due_s=max(wanted.ready_s + 1_200, wanted.due_s - 1_800))
        told = f"The customer of {name} needs it by {clock_time(sooner.due_s)} now."
        return News(replace(heard, parcels={**day.parcels, name: sooner}), told, name)
    closure = _closure(draw, day)
    low, high = closure.street
    told = (
        f"The street between crossings {low} and {high} is closed from "
        f"{clock_time(closure.from_s)} to {clock_time(closure.until_s)}."
    )
    closed = replace(day.city, closures=(*day.city.closures, closure))
    return News(replace(heard, city=closed), told)


def clock_time(at_s: int) -> str:
    """A time of day as people write it."""
    return f"{at_s // 3600:02}:{at_s % 3600 // 60:02}"


def _parcel(seed: int, number: int, earliest_s: int) -> Parcel:
    draw = randomness(seed, f"parcel {number}")
    ready_s = earliest_s + draw.randrange(0, 2 * 3_600, 300)
    return Parcel(
        parcel_id=f"P-{seed % 1_000:03}-{number:03}",
        crossing=draw.randrange(WIDTH * HEIGHT),
        weight_kg=draw.randrange(2, 30),
        ready_s=ready_s,
        due_s=ready_s + draw.randrange(2_400, 9_000, 300),
        note=draw.choice(_NOTES),
    )


def _closure(draw: random.Random, day: Day) -> Closure:
    """Close a street near some parcel, where it hurts."""
    near = day.parcels[draw.choice(sorted(day.parcels))].crossing
    neighbour = draw.choice(sorted(_neighbours(near)))
    from_s = OPENING_S + draw.randrange(0, 4 * 3_600, 300)
    until_s = from_s + draw.randrange(900, 7_200, 300)
    return Closure(street=_street(near, neighbour), from_s=from_s, until_s=until_s)


def _crossing(column: int, row: int) -> int:
    return row * WIDTH + column


def _street(one: int, other: int) -> Street:
    return (one, other) if one < other else (other, one)


def _neighbours(crossing: int) -> Iterator[int]:
    row, column = divmod(crossing, WIDTH)
    if column > 0:
        yield crossing - 1
    if column < WIDTH - 1:
        yield crossing + 1
    if row > 0:
        yield crossing - WIDTH
    if row < HEIGHT - 1:
        yield crossing + WIDTH


def _at_least_s(start: int, goal: int) -> int:
    """A bound that no route can beat: blocks between them, each at the fastest street's time."""
    row, column = divmod(start, WIDTH)
    goal_row, goal_column = divmod(goal, WIDTH)
    return (abs(row - goal_row) + abs(column - goal_column)) * FASTEST_STREET_S


def _walk_back(came_from: Mapping[int, int], goal: int) -> tuple[int, ...]:
    way = [goal]
    while way[-1] in came_from:
        way.append(came_from[way[-1]])
    return tuple(reversed(way))
