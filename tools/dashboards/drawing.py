"""Draws a dashboard with matplotlib, from its own JSON and the answers of a Prometheus.

Grafana draws the same JSON somewhat differently: this knows the kinds of panels that ours have, and
what of their options can be seen in a picture.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text
from PIL import Image

from tools.dashboards.answers import Answers, Line, Window, bounds, lines
from tools.dashboards.layout import Box, Card, Layout, lay_out
from tools.dashboards.units import log_ticks, ticks, time_ticks, written

PAGE, CARD, EDGE = "#111217", "#181b1f", "#2a2d33"
INK, FAINT, GRID = "#d8d9da", "#9fa3ad", "#2b2f36"
NAMED = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
}
"""Grafana's colours of these names, in its dark theme."""
OTHERS = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#fade2a")
"""Its colours for lines that have none of their own, by their numbers."""
INCH = 100
"""Pixels of one; only the ratio to a point matters."""
SCALE = 2
"""Pixels of the file for each of the layout: sharp where screens are dense."""
TITLE, LABEL, LEGEND = 14, 12, 12
LEGEND_LINE = 20
"""Heights of texts, in pixels."""


@dataclass(frozen=True, slots=True)
class Words:
    """What stands at the top of the picture."""

    title: str
    subtitle: str


def draw(
    board: Mapping[str, Any], answers: Answers, window: Window, words: Words, path: Path
) -> Sequence[str]:
    """Write a PNG; return the titles of panels that have nothing to show or cannot be drawn."""
    layout = lay_out(board)
    sheet = _Sheet(layout)
    sheet.text(16, 22, words.title, 18, weight="bold")
    sheet.text(16, 45, words.subtitle, LABEL, color=FAINT)
    for heading in layout.headings:
        middle = heading.box.top + heading.box.height / 2
        sheet.text(heading.box.left + 4, middle, f"⌄  {heading.panel['title']}", TITLE + 1)
    empty = list(layout.not_drawable)
    for card in layout.cards:
        found = lines(card.panel, answers, window)
        sheet.card(card)
        if found:
            _KINDS[card.panel["type"]](sheet, card, found, window)
        else:
            empty.append(card.panel["title"])
            sheet.text(*_middle(card.box), "No data", TITLE, color=FAINT, ha="center")
    path.write_bytes(sheet.png())
    return empty


class _Sheet:
    """The whole picture, in pixels that count from its top left."""

    def __init__(self, layout: Layout) -> None:
        self._size = layout.width, layout.height
        inches = layout.width / INCH, layout.height / INCH
        self._figure = Figure(figsize=inches, dpi=INCH * SCALE, facecolor=PAGE)
        self._canvas = FigureCanvasAgg(self._figure)
        self._ground = self._figure.add_axes((0, 0, 1, 1))
        self._ground.set_axis_off()
        self._ground.set_xlim(0, layout.width)
        self._ground.set_ylim(layout.height, 0)

    def text(self, left: float, middle: float, text: str, size: float, **how: Any) -> Text:
        """Write a text whose height is so many pixels, beginning at `left` unless `ha` is given."""
        how = {"color": INK, "va": "center_baseline", "zorder": 5} | how
        written_text: Text = self._ground.text(left, middle, text, size=_points(size), **how)
        return written_text

    def width(self, text: Text) -> float:
        """How wide a text is."""
        extent = text.get_window_extent(self._canvas.get_renderer())
        return float(extent.width) / SCALE

    def card(self, card: Card) -> None:
        """Draw the ground of a panel, and its title."""
        box = card.box
        self.rectangle(box, CARD, rounded=3, edgecolor=EDGE, linewidth=0.7)
        self.text(box.left + 10, box.top + 17, card.panel["title"], TITLE)

    def rectangle(self, box: Box, color: str, *, rounded: float, **how: Any) -> None:
        """Draw a rectangle whose corners have such a radius."""
        shape = f"round,pad=0,rounding_size={rounded}"
        corner = (box.left, box.top)
        patch = FancyBboxPatch(corner, box.width, box.height, boxstyle=shape, **how)
        patch.set_facecolor(color)
        self._ground.add_patch(patch)

    def axes(self, box: Box) -> Any:
        """Make a place for lines."""
        width, height = self._size
        axes = self._figure.add_axes(
            (box.left / width, 1 - box.bottom / height, box.width / width, box.height / height)
        )
        axes.set_facecolor("none")
        for side in axes.spines.values():
            side.set_visible(False)
        return axes

    def png(self) -> bytes:
        """The picture as a file of few colours, which makes it a third as large."""
        raw = BytesIO()
        self._figure.savefig(raw, format="png", facecolor=PAGE)
        few = Image.open(raw).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small = BytesIO()
        few.save(small, format="PNG", optimize=True)
        return small.getvalue()


def _points(pixels: float) -> float:
    return pixels * 72 / INCH


def _middle(box: Box) -> tuple[float, float]:
    return box.left + box.width / 2, box.top + box.height / 2


def _number(sheet: _Sheet, card: Card, found: Sequence[Line], window: Window) -> None:
    """One figure, with how it went below it."""
    defaults = card.panel["fieldConfig"]["defaults"]
    (line, *_) = found
    color = NAMED["green"]
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or line.last >= step["value"]:
            color = NAMED.get(step["color"], step["color"])
    number, _, unit = written(line.last, defaults["unit"]).partition(" ")
    shown = sheet.text(*_middle(card.box), number, 34, weight="bold", color=color, ha="center")
    if unit:  # smaller, and both together in the middle
        half = sheet.width(shown) / 2
        small = sheet.text(card.box.left, _middle(card.box)[1], unit, 17, color=color)
        shift = (sheet.width(small) + 5) / 2
        shown.set_x(_middle(card.box)[0] - shift)
        small.set_x(_middle(card.box)[0] - shift + half + 5)
        small.set_y(_middle(card.box)[1] + 5)
    axes = sheet.axes(card.box.inside(left=1, top=card.box.height * 0.68, right=1, bottom=1))
    axes.set_axis_off()
    x = range(window.points)
    axes.fill_between(x, line.values, color=color, alpha=0.2, lw=0)
    axes.plot(x, line.values, color=color, lw=1)
    axes.set_xlim(0, window.points - 1)
    axes.set_ylim(0, _greatest([line.values]) * 1.05 or 1)


def _graph(sheet: _Sheet, card: Card, found: Sequence[Line], window: Window) -> None:
    """Lines over time, or areas upon each other, and their names below."""
    defaults = card.panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    colors = [
        _own(card.panel, line.name, "color") or OTHERS[number % len(OTHERS)]
        for number, line in enumerate(found)
    ]
    dashed = [bool(_own(card.panel, line.name, "custom.lineStyle")) for line in found]
    names = [line.name for line in found]
    height = _legend(sheet, card.box, list(zip(names, colors, dashed, strict=True)))
    box = card.box.inside(left=78, top=40, right=22, bottom=height + 30)
    axes = sheet.axes(box)
    x = [index * window.step_s for index in range(window.points)]
    fill = custom.get("fillOpacity", 0) / 100
    tops: list[Sequence[float]] = []
    if custom.get("stacking", {}).get("mode") == "normal":
        ground = [0.0] * window.points
        for line, color in zip(found, colors, strict=True):
            here = [0 if math.isnan(value) else value for value in line.values]
            top = [a + b for a, b in zip(ground, here, strict=True)]
            axes.fill_between(x, ground, top, color=color, alpha=fill, lw=0)
            axes.plot(x, top, color=color, lw=1.2, clip_on=False)
            ground = top
            tops.append(top)
    else:
        for line, color, dash in zip(found, colors, dashed, strict=True):
            axes.fill_between(x, line.values, color=color, alpha=fill, lw=0)
            axes.plot(x, line.values, "--" if dash else "-", color=color, lw=1.2, clip_on=False)
            tops.append(line.values)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        values = [value for top in tops for value in top if value > 0]
        places = log_ticks(min(values), max(values)) if values else [0.1, 1.0]
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_ylim(places[0], places[-1])
    else:
        places = ticks(max(_greatest(tops), custom.get("axisSoftMax") or 0))
        axes.set_ylim(0, places[-1])
    _time_axis(axes, box, window)
    axes.set_yticks(places, [written(place, defaults["unit"]) for place in places])


def _heat(sheet: _Sheet, card: Card, found: Sequence[Line], window: Window) -> None:
    """A column for each step, a row for each bucket: the brighter, the more."""
    buckets = bounds(found)
    counts = [buckets[0][1].values] + [
        tuple(max(0.0, high - low) for low, high in zip(below.values, above.values, strict=True))
        for (_, below), (_, above) in pairwise(buckets)
    ]
    used = [index for index, row in enumerate(counts) if _greatest([row]) > 0]
    first, last = used[0], used[-1]
    box = card.box.inside(left=78, top=40, right=22, bottom=38)
    axes = sheet.axes(box)
    rows = [[value or math.nan for value in row] for row in counts[first : last + 1]]
    x = [(index - 0.5) * window.step_s for index in range(window.points + 1)]
    axes.pcolormesh(x, range(len(rows) + 1), rows, cmap=colormaps["Blues_r"], rasterized=True)
    axes.set_ylim(0, len(rows))
    _time_axis(axes, box, window)
    every = math.ceil(len(rows) / 8)
    shown = range(0, len(rows), every)
    names = [
        written(buckets[first + index][0], card.panel["options"]["yAxis"]["unit"])
        if math.isfinite(buckets[first + index][0])
        else "more"
        for index in shown
    ]
    axes.set_yticks([index + 1 for index in shown], names)
    axes.grid(visible=False)


def _time_axis(axes: Any, box: Box, window: Window) -> None:
    places = time_ticks(window.length_s, wanted=int(box.width / 70))
    axes.set_xlim(0, window.length_s)
    axes.set_xticks(places, [f"{int(at) // 60}:{int(at) % 60:02}" for at in places])
    axes.tick_params(length=0, pad=5, labelsize=_points(LABEL), labelcolor=FAINT)
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def _legend(sheet: _Sheet, box: Box, items: Sequence[tuple[str, str, bool]]) -> float:
    """Write the names at the bottom of a card, in as many lines as they take; return the height."""
    rows: list[list[tuple[Text, str, bool, float]]] = [[]]
    left = 0.0
    for name, color, dash in items:
        text = sheet.text(0, 0, name, LEGEND, color=INK)
        width = sheet.width(text) + 36
        if rows[-1] and left + width > box.width - 20:
            rows.append([])
            left = 0.0
        rows[-1].append((text, color, dash, left))
        left += width
    for index, row in enumerate(rows):
        middle = box.bottom - 12 - (len(rows) - 1 - index) * LEGEND_LINE
        for text, color, dash, at in row:
            begin = box.left + 12 + at
            for part, width in ((0, 6), (8, 6)) if dash else ((0, 14),):
                key = Box(begin + part, middle - 2, width, 4)
                sheet.rectangle(key, color, rounded=1.5, edgecolor="none")
            text.set_position((begin + 20, middle))
    return len(rows) * LEGEND_LINE


def _own(panel: Mapping[str, Any], name: str, what: str) -> str | None:
    """The colour or the dashes that a panel gives to a line of this name."""
    for override in panel["fieldConfig"]["overrides"]:
        if re.search(override["matcher"]["options"].strip("/"), name):
            for given in override["properties"]:
                if given["id"] == what:
                    color: str = given["value"].get("fixedColor", given["value"].get("fill"))
                    return NAMED.get(color, color)
    return None


def _greatest(rows: Sequence[Sequence[float]]) -> float:
    return max((value for row in rows for value in row if math.isfinite(value)), default=0.0)


_KINDS = {"stat": _number, "timeseries": _graph, "heatmap": _heat}
