"""A flame graph as a small SVG: one rectangle for each call that takes long enough to be seen."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW = 1_200, 17
LEAST_SHARE = 0.003
"""Narrower calls are left out: nobody can point at them, and the file stays small."""
CHARACTER = 6.4


@dataclass(frozen=True, slots=True)
class _Call:
    counts: list[int] = field(default_factory=lambda: [0])
    called: "dict[str, _Call]" = field(default_factory=dict)


def draw(stacks: Mapping[tuple[str, ...], int], *, title: str) -> str:
    """Draw stacks (frames from the outside in) and how often each was seen.

    What all stacks begin with is left out.
    """
    root = _Call()
    skip = _common(list(stacks))
    for frames, count in stacks.items():
        call = root
        call.counts[0] += count
        for frame in frames[skip:]:
            call = call.called.setdefault(frame, _Call())
            call.counts[0] += count
    boxes: list[str] = []
    depth = _boxes(root, total=max(1, root.counts[0]), left=0.0, depth=0, boxes=boxes)
    height = (depth + 2) * ROW
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="monospace" font-size="11">',
            f'<text x="4" y="13">{escape(title)}: {root.counts[0]:,} samples</text>',
            *(box.format(height=height) for box in boxes),
            "</svg>\n",
        )
    )


def _common(stacks: list[tuple[str, ...]]) -> int:
    """How many frames all stacks of the busiest thread begin with; 0 if they differ at once."""
    shortest = min((len(frames) for frames in stacks), default=0)
    for depth in range(shortest):
        if len({frames[depth] for frames in stacks}) > 1:
            return depth
    return max(0, shortest - 1)


def _boxes(call: _Call, *, total: int, left: float, depth: int, boxes: list[str]) -> int:
    """Add the boxes of what a call called, largest first; return the greatest depth."""
    deepest = depth
    for frame, called in sorted(call.called.items(), key=lambda item: -item[1].counts[0]):
        share = called.counts[0] / total
        if share < LEAST_SHARE:
            continue
        width = WIDTH * share
        boxes.append(_box(frame, share, left, width, depth))
        below = _boxes(called, total=total, left=left, depth=depth + 1, boxes=boxes)
        deepest = max(deepest, below)
        left += width
    return deepest


def _box(frame: str, share: float, left: float, width: float, depth: int) -> str:
    hue = 20 + hashlib.sha256(frame.encode()).digest()[0] % 35
    text = escape(frame.replace("{", "(").replace("}", ")"))
    room = int(width / CHARACTER)
    label = escape(frame[: max(0, room - 1)].replace("{", "(").replace("}", ")"))
    # The top depends on the height, which is known only at the end: a transform takes both.
    return (
        f'<g transform="translate({left:.1f} {{height}}) translate(0 -{(depth + 1) * ROW})">'
        f"<title>{text}: {100 * share:.1f} %</title>"
        f'<rect width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue} 75% 68%)"/>'
        f'<text x="2" y="12">{label}</text></g>'
    )
