"""Where everything of a dashboard's picture stands, in pixels: Grafana's grid of 24 columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = 24
PICTURE_WIDTH = 1400
MARGIN = 16
HEADER = 64
"""Height of the title and of the line below it."""
GAP = 8
ROW = 30
"""Gap and height of a row of the grid, as Grafana has them."""
DRAWABLE = frozenset({"stat", "timeseries", "heatmap"})
"""The kinds of panels that can be drawn, beside the headings between them."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `top` counts from the top of the picture."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Where it ends, counted from the top."""
        return self.top + self.height

    def inside(self, *, left: float, top: float, right: float, bottom: float) -> "Box":
        """Return what is left within such edges."""
        return Box(
            self.left + left,
            self.top + top,
            self.width - left - right,
            self.height - top - bottom,
        )


@dataclass(frozen=True, slots=True)
class Card:
    """A panel and its place."""

    panel: Mapping[str, Any]
    box: Box


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole picture.

    Attributes:
        headings: The rows between the panels.
        not_drawable: Titles of the panels whose kind cannot be drawn; their place stays empty.
    """

    width: int
    height: int
    headings: Sequence[Card]
    cards: Sequence[Card]
    not_drawable: Sequence[str]


def lay_out(board: Mapping[str, Any]) -> Layout:
    """Find the place of every panel of a dashboard."""
    headings = [panel for panel in board["panels"] if panel["type"] == "row"]
    drawn = [panel for panel in board["panels"] if panel["type"] in DRAWABLE]
    others = [panel for panel in board["panels"] if panel["type"] not in DRAWABLE | {"row"}]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    return Layout(
        width=PICTURE_WIDTH,
        height=HEADER + rows * (ROW + GAP) - GAP + MARGIN,
        headings=[Card(panel, _box(panel["gridPos"])) for panel in headings],
        cards=[Card(panel, _box(panel["gridPos"])) for panel in drawn],
        not_drawable=[panel["title"] for panel in others],
    )


def _box(place: Mapping[str, int]) -> Box:
    column = (PICTURE_WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    return Box(
        left=MARGIN + place["x"] * (column + GAP),
        top=HEADER + place["y"] * (ROW + GAP),
        width=place["w"] * (column + GAP) - GAP,
        height=place["h"] * (ROW + GAP) - GAP,
    )
