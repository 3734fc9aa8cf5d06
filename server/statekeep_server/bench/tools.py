"""The tools that the demo agent calls: functions of the day that answer with JSON objects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from statekeep_server.bench.city import DEPOT, OPENING_S, Day, clock_time

VAN_KG = 80
HANDOVER_S = 180
RELOADING_S = 300
LATE_WEIGHT = 10
"""A second too late is as bad as ten seconds on the road."""
MEASURED_AT_S = OPENING_S + 3_600

Result = dict[str, Any]


def look_up_parcel(day: Day, arguments: Mapping[str, Any]) -> Result:
    """Everything that the label of a parcel says."""
    parcel = day.parcels.get(arguments["parcel_id"])
    if parcel is None:
        return {"error": "there is no such parcel"}
    return {
        "parcel_id": parcel.parcel_id,
        "crossing": parcel.crossing,
        "weight_kg": parcel.weight_kg,
        "ready": clock_time(parcel.ready_s),
        "ready_s": parcel.ready_s,
        "due": clock_time(parcel.due_s),
        "due_s": parcel.due_s,
        "note": parcel.note,
    }


def measure_legs(day: Day, arguments: Mapping[str, Any]) -> Result:
    """Seconds from one stop to every other stop at a quiet time of the day."""
    start = day.place(arguments["stop"])
    legs: dict[str, int] = {}
    expanded = 0
    for stop in [DEPOT, *sorted(day.parcels)]:
        route = day.city.route(start, day.place(stop), MEASURED_AT_S)
        legs[stop] = route.arrive_s - MEASURED_AT_S
        expanded += route.expanded
    return {"stop": arguments["stop"], "legs_s": legs, "crossings_searched": expanded}


def drive_tour(day: Day, arguments: Mapping[str, Any]) -> Result:
    """Drive a tour from the depot and back, street by street, and tell what it costs.

    The van goes back to the depot by itself when the next parcel would be too heavy.
    """
    at_s, place, load_kg = OPENING_S, day.city.depot, 0
    stops: list[Result] = []
    late_s = expanded = reloads = 0
    for name in arguments["tour"]:
        parcel = day.parcels[name]
        if load_kg + parcel.weight_kg > VAN_KG:
            back = day.city.route(place, day.city.depot, at_s)
            at_s, place, load_kg = back.arrive_s + RELOADING_S, day.city.depot, 0
            expanded += back.expanded
            reloads += 1
        route = day.city.route(place, parcel.crossing, at_s)
        arrive_s = max(route.arrive_s, parcel.ready_s)
        stop_late_s = max(0, arrive_s - parcel.due_s)
        stops.append(
            {
                "stop": name,
                "arrive": clock_time(arrive_s),
                "streets": len(route.crossings) - 1,
                "waits_s": arrive_s - route.arrive_s,
                "late_s": stop_late_s,
            }
        )
        late_s += stop_late_s
        expanded += route.expanded
        at_s, place = arrive_s + HANDOVER_S, parcel.crossing
        load_kg += parcel.weight_kg
    home = day.city.route(place, day.city.depot, at_s)
    took_s = home.arrive_s - OPENING_S
    return {
        "cost": took_s + LATE_WEIGHT * late_s,
        "took_s": took_s,
        "late_s": late_s,
        "home": clock_time(home.arrive_s),
        "reloads": reloads,
        "stops": stops,
        "crossings_searched": expanded + home.expanded,
    }


TOOLS: Mapping[str, Callable[[Day, Mapping[str, Any]], Result]] = {
    "look_up_parcel": look_up_parcel,
    "measure_legs": measure_legs,
    "drive_tour": drive_tour,
}


def estimate(
    tour: Sequence[str],
    legs_s: Mapping[str, Mapping[str, int]],
    parcels: Mapping[str, Mapping[str, int]],
) -> int:
    """Guess the cost of a tour from measured legs, without driving it.

    Args:
        tour: Stops in order.
        legs_s: Seconds from stop to stop.
        parcels: What was looked up of each: `ready_s`, `due_s` and `weight_kg`.
    """
    at_s, stop, load_kg, late_s = OPENING_S, DEPOT, 0, 0
    for name in tour:
        parcel = parcels[name]
        if load_kg + parcel["weight_kg"] > VAN_KG:
            at_s += legs_s[stop][DEPOT] + RELOADING_S
            stop, load_kg = DEPOT, 0
        at_s = max(at_s + legs_s[stop][name], parcel["ready_s"])
        late_s += max(0, at_s - parcel["due_s"])
        at_s += HANDOVER_S
        stop = name
        load_kg += parcel["weight_kg"]
    return at_s + legs_s[stop][DEPOT] - OPENING_S + LATE_WEIGHT * late_s
