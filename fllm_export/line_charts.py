"""Plain SVG line charts whose text keeps its size at every width of a page. No script, no font, no file beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fllm_export.charts import COLOURS, Scale

_LEFT, _RIGHT = 9.0, 97.0
_TOP, _HEIGHT, _BELOW = 10, 260, 44
_LABEL_LINE = 15
_UNITS = 1000
_DETAIL_HEIGHT = 17
_HINT = "Point at a mark to see what it is."

SHAPES = {
    "circle": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z",
    "square": "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "triangle": "M0,-6L5.5,4.5H-5.5Z",
    "diamond": "M0,-6.5L6,0L0,6.5L-6,0Z",
}
"""Outlines of marks around their place, in pixels."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        title: what it measures, with the unit.
        low: value at the beginning.
        high: value at the end.
        ticks: values that get a label, and the labels; a line break in a label is kept on a horizontal axis.
        logarithmic: whether equal distances are equal ratios.
    """

    title: str
    low: float
    high: float
    ticks: Mapping[float, str]
    logarithmic: bool = False

    @classmethod
    def from_zero(cls, title: str, largest: float) -> Axis:
        """Return an axis from 0 to a round value of at least ``largest``."""
        scale = Scale.from_zero(title, largest)
        return cls(title, 0.0, scale.high, {tick: f"{tick:,.{scale.digits}f}" for tick in scale.ticks})

    @classmethod
    def named(cls, title: str, labels: Sequence[str]) -> Axis:
        """Return an axis on which label number i stands at the value i."""
        return cls(title, -0.4, len(labels) - 0.6, dict(enumerate(labels)))

    @classmethod
    def decades(cls, title: str, values: Sequence[float]) -> Axis:
        """Return a logarithmic axis of whole decades around positive values, at least one, with at most eight ticks."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        high = max(high, low + 1)
        step = -(-(high - low) // 7)
        ticks = {10.0**power: _power(power) for power in range(low, high + 1, step)}
        return cls(title, 10.0**low, 10.0**high, ticks, True)

    @classmethod
    def ratios(cls, title: str, values: Sequence[float]) -> Axis:
        """Return a logarithmic axis close around positive values, whose ends and ticks are 1, 2 or 5 times a power."""
        powers = range(math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values))) + 2)
        steps = [part * 10.0**power for power in powers for part in (1, 2, 5)]
        first = max(at for at, step in enumerate(steps) if step <= min(values))
        last = max(first + 1, min(at for at, step in enumerate(steps) if step >= max(values)))
        ticks = steps[first : last + 1]
        if len(ticks) > 8:
            powers_only = [step for step in ticks if math.isclose(math.log10(step), round(math.log10(step)))]
            ticks = list(dict.fromkeys([steps[first], *powers_only, steps[last]]))
        return cls(title, steps[first], steps[last], {tick: _short(tick) for tick in ticks}, True)

    def share(self, value: float) -> float:
        """Return where a value stands, from 0 to 1; values outside stand at the ends."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return min(max((at - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Line:
    """A line of :func:`lines`.

    Attributes:
        points: x and y, in the order in which they are joined.
        colour: number of its colour in :func:`fllm_export.charts.legend`; None for a thin dotted line in grey.
        strong: whether it is drawn thicker than others.
        dashed: whether it has gaps, so that a line below it stays in sight.
        marked: whether each point gets a dot.
    """

    points: Sequence[tuple[float, float]]
    colour: int | None
    strong: bool = False
    dashed: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Mark:
    """A single point of :func:`lines` that tells what it is.

    Attributes:
        x: where it stands.
        y: likewise.
        colour: number of its colour in :func:`fllm_export.charts.legend`.
        details: short lines of plain text, shown in the emptiest corner of the chart while the mark is pointed at or
            has the focus; none for a mark that tells nothing.
        shape: a name of :data:`SHAPES`.
        filled: whether it is filled with its colour, or with that of the page.
    """

    x: float
    y: float
    colour: int
    details: Sequence[str]
    shape: str = "circle"
    filled: bool = True


def lines(name: str, drawn: Sequence[Line], x: Axis, y: Axis, marks: Sequence[Mark] = ()) -> str:
    """Return a chart of lines over common axes; later lines lie over earlier ones, and marks over all lines.

    Args:
        name: what the chart shows, for readers that do not see it.
        drawn: the lines.
        x: the horizontal axis.
        y: the vertical axis; its title stands above it.
        marks: points that tell what they are, without a script.
    """
    paths = "".join(_path(line, x, y) for line in drawn)
    plot = (
        f'<svg x="{_LEFT}%" y="{_TOP + 20}" width="{_RIGHT - _LEFT}%" height="{_HEIGHT}" '
        f'viewBox="0 0 {_UNITS} {_UNITS}" preserveAspectRatio="none" overflow="visible">{paths}</svg>'
    )
    dots = "".join(_dots(line, x, y) for line in drawn if line.marked)
    height = _TOP + 20 + _HEIGHT + _BELOW + _more_lines(x)
    corner = _emptiest_corner(marks, x, y)
    spots, hint = "".join(_spot(mark, x, y, corner) for mark in marks), ""
    if any(mark.details for mark in marks):
        hint = f'<text class="hint" x="{_LEFT}%" y="{height + 12}">{_HINT}</text>'
        height += _DETAIL_HEIGHT + 8
    content = "".join([*_horizontal(y), *_vertical(x), hint, plot, dots, spots])
    return f'<svg class="chart" height="{height}" role="img" aria-label="{escape(name)}">{content}</svg>'


def _path(line: Line, x: Axis, y: Axis) -> str:
    points = " ".join(f"{x.share(a) * _UNITS:.1f},{(1 - y.share(b)) * _UNITS:.1f}" for a, b in line.points)
    kind = "line dotted" if line.colour is None else f"line s{line.colour % COLOURS}"
    kind += " strong" * line.strong + " dashed" * line.dashed
    return f'<polyline class="{kind}" vector-effect="non-scaling-stroke" points="{points}"/>'


def _dots(line: Line, x: Axis, y: Axis) -> str:
    kind = "" if line.colour is None else f' class="c{line.colour % COLOURS}"'
    radius = 5 if line.strong else 3.5
    return "".join(
        f'<circle{kind} cx="{_across(x.share(a)):.2f}%" cy="{_down(y.share(b)):.1f}" r="{radius}"/>'
        for a, b in line.points
    )


def _emptiest_corner(marks: Sequence[Mark], x: Axis, y: Axis) -> tuple[bool, bool]:
    """Return whether the quarter of a chart with the fewest marks is to the right, and whether it is at the top."""
    taken = [(x.share(mark.x) >= 0.5, y.share(mark.y) >= 0.5) for mark in marks]
    return min(((False, True), (True, False), (True, True), (False, False)), key=taken.count)


def _spot(mark: Mark, x: Axis, y: Axis, corner: tuple[bool, bool]) -> str:
    """Return a mark and its details, which a style shows only while the mark is pointed at."""
    right, top = corner
    side = f'class="told side" x="{_RIGHT - 1}%"' if right else f'class="told" x="{_LEFT + 1}%"'
    first = _down(1) + _DETAIL_HEIGHT if top else _down(0) - 10 - _DETAIL_HEIGHT * (len(mark.details) - 1)
    kind = f"s{mark.colour % COLOURS} " + (f"c{mark.colour % COLOURS}" if mark.filled else "hollow")
    at = f'x="{_across(x.share(mark.x)):.2f}%" y="{_down(y.share(mark.y)):.1f}"'
    told = "".join(
        f'<text {side} y="{first + number * _DETAIL_HEIGHT:.0f}">{escape(line)}</text>'
        for number, line in enumerate(mark.details)
    )
    shape = f'<svg {at} overflow="visible"><path class="{kind}" d="{SHAPES[mark.shape]}"/></svg>'
    if not mark.details:
        return f'<g class="spot">{shape}</g>'
    title = f"<title>{escape('; '.join(mark.details))}</title>"
    return f'<g class="spot" tabindex="0">{title}{shape}{told}</g>'


def key(colour: int, shape: str) -> str:
    """Return a mark by itself, for a legend."""
    return (
        f'<svg class="key" viewBox="-7 -7 14 14"><path class="s{colour % COLOURS} c{colour % COLOURS}" '
        f'd="{SHAPES[shape]}"/></svg>'
    )


def _horizontal(y: Axis) -> list[str]:
    parts = [f'<text class="name" x="0" y="{_TOP + 4}">{escape(y.title)}</text>']
    for value, label in y.ticks.items():
        at = _down(y.share(value))
        parts.append(f'<line class="grid" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick side" x="{_LEFT - 1}%" y="{at + 4:.1f}">{escape(label)}</text>')
    return parts


def _vertical(x: Axis) -> list[str]:
    bottom = _down(0)
    parts = [f'<line class="axis" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{bottom}" y2="{bottom}"/>']
    for value, label in x.ticks.items():
        at = _across(x.share(value))
        parts.append(f'<line class="axis" x1="{at:.2f}%" x2="{at:.2f}%" y1="{bottom}" y2="{bottom + 4}"/>')
        parts += [
            f'<text class="tick" x="{at:.2f}%" y="{bottom + 18 + number * _LABEL_LINE}">{escape(part)}</text>'
            for number, part in enumerate(label.split("\n"))
        ]
    middle, below = (_LEFT + _RIGHT) / 2, bottom + 38 + _more_lines(x)
    parts.append(f'<text class="title" x="{middle}%" y="{below}">{escape(x.title)}</text>')
    return parts


def _more_lines(x: Axis) -> int:
    """Return the height that labels take beyond that of one line."""
    return _LABEL_LINE * max((label.count("\n") for label in x.ticks.values()), default=0)


def _across(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share


def _down(share: float) -> float:
    return _TOP + 20 + _HEIGHT * (1 - share)


def _short(value: float) -> str:
    """Return a value in few letters, which the margin of a narrow page has room for."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:,.10g} {name}"
    return f"{value:.10g}"


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"
