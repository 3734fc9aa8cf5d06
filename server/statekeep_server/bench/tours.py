"""Ways to make a tour and to change one: what the demo agent thinks between its tool calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from statekeep_server.bench.city import DEPOT

Tour = tuple[str, ...]
Guess = Callable[[Sequence[str]], int]
"""Guesses the cost of a tour; lower is better."""


def by_nearest(stops: Sequence[str], legs_s: Mapping[str, Mapping[str, int]]) -> Tour:
    """Always go to the stop that is nearest."""
    left, tour, at = sorted(stops), list[str](), DEPOT
    while left:
        at = min(left, key=lambda stop: (legs_s[at][stop], stop))
        left.remove(at)
        tour.append(at)
    return tuple(tour)


def by_due(stops: Sequence[str], due_s: Mapping[str, int]) -> Tour:
    """Go where it is due first."""
    return tuple(sorted(stops, key=lambda stop: (due_s[stop], stop)))


def by_insertion(stops: Sequence[str], guess: Guess, start: Sequence[str] = ()) -> Tour:
    """Put each stop that is missing where it costs least."""
    tour = tuple(start)
    for stop in sorted(set(stops) - set(tour)):
        places = range(len(tour) + 1)
        tour = min(((*tour[:i], stop, *tour[i:]) for i in places), key=lambda t: (guess(t), t))
    return tour


def variations(tour: Sequence[str]) -> Iterator[Tour]:
    """Every tour that moves one stop or turns one stretch round."""
    stops = tuple(tour)
    for i, stop in enumerate(stops):
        rest = stops[:i] + stops[i + 1 :]
        for j in range(len(rest) + 1):
            if j != i:
                yield (*rest[:j], stop, *rest[j:])
    for i in range(len(stops) - 2):
        for j in range(i + 3, len(stops) + 1):
            yield stops[:i] + tuple(reversed(stops[i:j])) + stops[j:]


def most_promising(tour: Sequence[str], guess: Guess, count: int) -> list[Tour]:
    """The variations of a tour with the best guesses, best first, none twice."""
    return sorted(set(variations(tour)) - {tuple(tour)}, key=lambda t: (guess(t), t))[:count]
