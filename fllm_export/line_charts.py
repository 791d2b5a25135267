"""Plain SVG line charts whose text keeps its size at every width of a page. No script, no font, no file beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from fllm_export.charts import COLOURS, Scale

_LEFT, _RIGHT = 9.0, 97.0
_TOP, _HEIGHT, _BELOW = 10, 260, 44
_UNITS = 1000


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        title: what it measures, with the unit.
        low: value at the beginning.
        high: value at the end.
        ticks: values that get a label, and the labels.
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


def lines(name: str, drawn: Sequence[Line], x: Axis, y: Axis) -> str:
    """Return a chart of lines over common axes; later lines lie over earlier ones.

    Args:
        name: what the chart shows, for readers that do not see it.
        drawn: the lines.
        x: the horizontal axis.
        y: the vertical axis; its title stands above it.
    """
    paths = "".join(_path(line, x, y) for line in drawn)
    plot = (
        f'<svg x="{_LEFT}%" y="{_TOP + 20}" width="{_RIGHT - _LEFT}%" height="{_HEIGHT}" '
        f'viewBox="0 0 {_UNITS} {_UNITS}" preserveAspectRatio="none" overflow="visible">{paths}</svg>'
    )
    dots = "".join(_dots(line, x, y) for line in drawn if line.marked)
    height = _TOP + 20 + _HEIGHT + _BELOW
    content = "".join([*_horizontal(y), *_vertical(x), plot, dots])
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
        parts.append(f'<text class="tick" x="{at:.2f}%" y="{bottom + 18}">{escape(label)}</text>')
    middle = (_LEFT + _RIGHT) / 2
    parts.append(f'<text class="title" x="{middle}%" y="{bottom + 38}">{escape(x.title)}</text>')
    return parts


def _across(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share


def _down(share: float) -> float:
    return _TOP + 20 + _HEIGHT * (1 - share)


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"
