"""Values as Grafana writes them, and round places for the lines of an axis."""

import math
from collections.abc import Sequence

COUNTED = {"short": "", "none": "", "ops": " ops/s", "wps": " wr/s", "rps": " rd/s"}
"""What stands after a count, by the unit of the panel."""
THOUSANDS = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
SECONDS = (
    (86_400.0, " days"),
    (3_600.0, " hours"),
    (60.0, " mins"),
    (1.0, " s"),
    (1e-3, " ms"),
    (1e-6, " µs"),
)
BINARY = ((2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"))
MANY_POWERS = 5
"""Of ten, on an axis: three places for each would be too many for a panel."""
ROUND = (1, 2, 2.5, 5, 10)


def written(value: float, unit: str, *, digits: int = 3) -> str:
    """Write a value with its unit.

    Raises:
        KeyError: No panel has had such a unit yet; it belongs into the tables above.
    """
    if unit == "percentunit":
        return f"{_short(100 * value, digits)}%"
    if unit == "s":
        return _scaled(value, SECONDS, " s", digits)
    if unit == "bytes":
        return _scaled(value, BINARY, " B", digits)
    return _scaled(value, THOUSANDS, "", digits) + COUNTED[unit]


def _scaled(value: float, scales: Sequence[tuple[float, str]], unscaled: str, digits: int) -> str:
    for size, name in scales:
        if abs(value) >= size:
            return _short(value / size, digits) + name
    return _short(value, digits) + unscaled


def _short(value: float, digits: int) -> str:
    """Write so many digits, never as a power of ten, and no zeros at the end."""
    if not value:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(most: float, *, wanted: int = 5) -> list[float]:
    """Choose round places from 0 on, about as many as wanted; the last is not below `most`."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in ROUND if power * size >= rough * (1 - 1e-9))
    return [index * step for index in range(math.ceil(most / step - 1e-9) + 1)]


def log_ticks(least: float, most: float) -> list[float]:
    """Choose the places of a logarithmic axis around two values: 1, 2 and 5 of each power of ten.

    Where these are many, the powers of ten alone.
    """
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    sizes = (1, 2, 5) if len(powers) < MANY_POWERS else (1,)
    places = [float(f"{size}e{power}") for power in powers for size in sizes]
    below = max((place for place in places if place <= least), default=places[0])
    above = min((place for place in places if place >= most), default=places[-1])
    if below == above:
        return [below, below * 10]
    return [place for place in places if below <= place <= above]


def time_ticks(length_s: float, *, wanted: int) -> list[float]:
    """Choose whole seconds and minutes from 0 to a length, at most as many as wanted."""
    for step_s in (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800):
        if length_s / step_s <= wanted:
            break
    return [float(at) for at in range(0, int(length_s) + 1, step_s)]
