"""What is said between the dispatcher and the demo agent."""

from collections.abc import Mapping, Sequence
from typing import Any

from statekeep_server.bench.city import HEIGHT, WIDTH

POLICY = f"""# Tour planner

You plan the tour of one delivery van for one day and keep the plan good while news comes in.

## The city

The streets are a grid of {WIDTH} by {HEIGHT} crossings, numbered row by row from 0. Every street \
takes the same time in both directions. A street may be closed for some time; the van then waits \
or drives round it, whichever is faster.

## The van

- It leaves the depot at 08:00 and comes back when all parcels are delivered.
- It carries at most 80 kg. When the next parcel is too heavy, it goes back to the depot first; \
reloading takes five minutes.
- Handing a parcel over takes three minutes.
- A parcel may not be delivered before its ready time; the van waits.
- A parcel that comes after its due time is late. One second too late costs as much as ten seconds \
of driving.

## Your tools

- look_up_parcel: what the label of a parcel says. Look up every parcel before you plan with it, \
and again when the dispatcher says that something about it changed.
- measure_legs: driving times from one stop to all others at a quiet time. They are good for a \
guess, not for a promise.
- drive_tour: drives a tour street by street, with closures, waiting and reloading, and tells its \
cost. Only what was driven may be promised.

## How to work

1. Look up the parcels, then measure the legs between the stops.
2. Make a few tours in different ways and drive them. Keep the best.
3. Change the best tour a little, drive the most promising changes, and keep what is better. Stop \
when the most promising changes bring nothing.
4. Report the tour with its cost, and wait for news. Do not promise anything that was not driven.
"""


def greeting(parcels: Sequence[str]) -> str:
    """The dispatcher's first message."""
    return (
        f"Good morning. There are {len(parcels)} parcels for today: {', '.join(parcels)}. "
        "Please look up what their labels say, plan the tour of the van, and report it to me. "
        "I will tell you when something changes during the day."
    )


def news(told: str) -> str:
    """The dispatcher brings news."""
    return f"Thank you. There is news: {told} Please check the tour and report again."


def looking_up(names: Sequence[str]) -> str:
    """Before labels are looked up."""
    return f"I look up what the labels of {', '.join(names)} say."


def measuring(names: Sequence[str], left: int) -> str:
    """Before legs are measured."""
    more = f", with {left} more to measure after that" if left else ""
    return f"I measure how far it is from {', '.join(names)} to all the others{more}."


def building() -> str:
    """Before the first tours are driven."""
    return (
        "I have an idea of the day. I drive tours that were made in different ways: each "
        "stop put where it costs least by the measured legs, always to the nearest stop, or in the "
        "order of the due times."
    )


def improving(cost: int, guesses: Sequence[int]) -> str:
    """Before variations are driven."""
    return (
        f"The best tour so far costs {cost}. By the measured legs, the next variations would cost "
        f"{', '.join(map(str, guesses))}. I drive them to see whether one is really better."
    )


def report(tour: Sequence[str], drive: Mapping[str, Any]) -> str:
    """The plan as the dispatcher gets it."""
    stops = [
        f"- {stop['arrive']} {stop['stop']}"
        + (f", {stop['late_s'] // 60} min late" if stop["late_s"] else "")
        + (f", after {stop['waits_s'] // 60} min of waiting" if stop["waits_s"] >= 60 else "")
        for stop in drive["stops"]
    ]
    summary = (
        f"The tour has {len(tour)} stops and takes {drive['took_s'] // 60} minutes with "
        f"{drive['reloads']} reloads; the van is back at {drive['home']}. "
        f"Its cost is {drive['cost']}."
    )
    late = f"Late in all: {drive['late_s'] // 60} minutes. I found no tour with less."
    return "\n".join([summary, *stops, late if drive["late_s"] else "Every parcel is in time."])


CLOSING = "I stop searching here and write the plan down."
