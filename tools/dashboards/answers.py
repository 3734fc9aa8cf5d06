"""What a panel asks Prometheus, and the lines that the answers make."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tools.private_prometheus import Series


@dataclass(frozen=True, slots=True)
class Window:
    """What time is drawn.

    Attributes:
        rate: How far a rate looks back, as Prometheus writes it.
    """

    begin_s: float
    end_s: float
    step_s: float
    rate: str

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s

    @property
    def points(self) -> int:
        """How many values a line has, with both ends."""
        return round(self.length_s / self.step_s) + 1


class Answers(Protocol):
    """A Prometheus, or what one has said."""

    def between(
        self, query: str, begin_s: float, end_s: float, step_s: float
    ) -> tuple[Series, ...]:
        """The values of a time, one for each step."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series as a panel shows it: a value, or NaN, for each point of the window."""

    name: str
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The last value that there is; a line has one."""
        return next(value for value in reversed(self.values) if math.isfinite(value))


def lines(panel: Mapping[str, Any], answers: Answers, window: Window) -> list[Line]:
    """Ask what a panel asks, for all servers. A series without any value makes no line."""
    found = []
    for target in panel["targets"]:
        query = filled(target["expr"], window.rate)
        for one in answers.between(query, window.begin_s, window.end_s, window.step_s):
            line = Line(_name(target.get("legendFormat", ""), one.labels), _values(one, window))
            if any(map(math.isfinite, line.values)):
                found.append(line)
    return found


def filled(query: str, rate: str) -> str:
    """Put into a query what Grafana does: all servers, and how far a rate looks back."""
    query = query.replace("$__rate_interval", rate)
    return query.replace('"$job"', '".+"').replace('"$instance"', '".+"')


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


def _values(series: Series, window: Window) -> tuple[float, ...]:
    values = [math.nan] * window.points
    for at_s, value in series.points:
        index = round((at_s - window.begin_s) / window.step_s)
        if 0 <= index < len(values) and math.isfinite(value):
            values[index] = value
    return tuple(values)


@dataclass(slots=True)
class Recording:
    """Keeps what a Prometheus says, so that the same numbers can be drawn again."""

    window: Window
    said: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    source: Answers | None = None

    def between(
        self, query: str, begin_s: float, end_s: float, step_s: float
    ) -> tuple[Series, ...]:
        """Ask the source if there is one, else tell what it said before."""
        if self.source is not None:
            found = self.source.between(query, begin_s, end_s, step_s)
            self.said[query] = [
                {"labels": one.labels, "points": [list(point) for point in one.points]}
                for one in found
            ]
        return tuple(
            Series(one["labels"], tuple((at_s, value) for at_s, value in one["points"]))
            for one in self.said[query]
        )

    def write(self, path: Path) -> None:
        """Write everything that was said."""
        window = self.window
        times = [window.begin_s, window.end_s, window.step_s, window.rate]
        path.write_text(json.dumps({"window": times, "said": self.said}), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """Read what was written."""
        read = json.loads(path.read_text(encoding="utf-8"))
        return cls(Window(*read["window"]), read["said"])


def bounds(found: Sequence[Line]) -> list[tuple[float, Line]]:
    """The buckets of a histogram, whose lines are named by their upper bounds, in order."""
    return sorted(((float(line.name), line) for line in found), key=lambda pair: pair[0])
