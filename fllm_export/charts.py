"""Plain SVG charts whose text keeps its size at every width of a page. No script, no font, no file beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_ROW = 44
_AXIS = 46
_LEFT, _RIGHT = 5.0, 95.0
COLOURS = 9
"""Colours of a page; a tenth part or line has the first colour again."""


@dataclass(frozen=True)
class Scale:
    """A horizontal axis.

    Attributes:
        title: what it measures, with the unit.
        low: value at the left end.
        high: value at the right end.
        ticks: values that get a label.
        digits: decimals of a label.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    digits: int = 0

    @classmethod
    def from_zero(cls, title: str, largest: float) -> Scale:
        """Return an axis from 0 to a round value of at least ``largest``, with about four ticks."""
        exponent = math.floor(math.log10(max(largest, 1e-6) / 4))
        step = next(part * 10.0**exponent for part in (1, 2, 5, 10) if part * 10.0**exponent * 4 >= largest)
        count = max(1, math.ceil(largest / step - 1e-9))
        return cls(title, 0.0, count * step, [step * number for number in range(count + 1)], max(0, -exponent))

    def place(self, value: float) -> float:
        """Return where a value stands, in percent of the chart's width."""
        share = (value - self.low) / (self.high - self.low)
        return _LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0)


@dataclass(frozen=True)
class Dot:
    """A row of :func:`dots`.

    Attributes:
        label: what is measured.
        value: the measurement.
        text: the value as it is written.
        mark: a value that it is held against, drawn as a line across this row alone.
    """

    label: str
    value: float
    text: str
    mark: float | None = None


def dots(name: str, rows: Sequence[Dot], scale: Scale) -> str:
    """Return a chart with one dot per row, for values whose axis need not begin at 0."""
    parts = []
    for number, row in enumerate(rows):
        y = number * _ROW
        parts += _words(y, row.label, row.text)
        parts.append(f'<line class="track" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{y + 30}" y2="{y + 30}"/>')
        if row.mark is not None:
            x = scale.place(row.mark)
            parts.append(f'<line class="mark" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y + 20}" y2="{y + 40}"/>')
        parts.append(f'<circle class="c0" cx="{scale.place(row.value):.2f}%" cy="{y + 30}" r="6"/>')
    return _svg(name, len(rows), parts, scale)


def bars(name: str, rows: Mapping[str, Mapping[str, float]], texts: Mapping[str, str], scale: Scale) -> str:
    """Return a chart with one bar per row, cut into parts of one colour each; the axis begins at 0.

    Args:
        name: what the chart shows, for readers that do not see it.
        rows: label -> part -> length.
        texts: label -> what is written at the row's end.
        scale: the axis.
    """
    parts = []
    for number, (label, pieces) in enumerate(rows.items()):
        y, end = number * _ROW, 0.0
        parts += _words(y, label, texts[label])
        for colour, length in enumerate(pieces.values()):
            begin, end = end, end + length
            x, width = scale.place(begin), scale.place(end) - scale.place(begin)
            style = f"c{colour % COLOURS}"
            parts.append(f'<rect class="{style}" x="{x:.2f}%" y="{y + 22}" width="{width:.2f}%" height="14"/>')
    return _svg(name, len(rows), parts, scale)


def legend(texts: Sequence[str]) -> str:
    """Return the colours of the parts of :func:`bars` or of lines, in their order, with a text for each."""
    keys = "".join(
        f'<li><svg class="key"><rect class="c{number % COLOURS}" width="12" height="12"/></svg>{escape(text)}</li>'
        for number, text in enumerate(texts)
    )
    return f'<ul class="legend">{keys}</ul>'


def _words(y: int, label: str, text: str) -> list[str]:
    return [
        f'<text x="{_LEFT}%" y="{y + 15}">{escape(label)}</text>',
        f'<text class="value" x="{_RIGHT}%" y="{y + 15}">{escape(text)}</text>',
    ]


def _svg(name: str, rows: int, parts: Sequence[str], scale: Scale) -> str:
    y = rows * _ROW + 6
    axis = [f'<line class="axis" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{y}" y2="{y}"/>']
    for tick in scale.ticks:
        x = scale.place(tick)
        axis.append(f'<line class="axis" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y}" y2="{y + 4}"/>')
        axis.append(f'<text class="tick" x="{x:.2f}%" y="{y + 18}">{tick:,.{scale.digits}f}</text>')
    axis.append(f'<text class="title" x="{(_LEFT + _RIGHT) / 2}%" y="{y + 36}">{escape(scale.title)}</text>')
    content = "".join([*parts, *axis])
    return f'<svg class="chart" height="{rows * _ROW + _AXIS}" role="img" aria-label="{escape(name)}">{content}</svg>'
