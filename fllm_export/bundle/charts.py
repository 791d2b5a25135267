"""Plain SVG charts: bars and one divided bar. No script, no font, no file beside them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_WIDTH = 640
_BAR = 22
_GAP = 8
_LABEL = 150
_VALUE = 90
_COLOURS = ("#3566b8", "#c2742c", "#3c8a5a", "#8a4fa3", "#777777")


def bars(values: Mapping[str, float], texts: Mapping[str, str], *, largest: float, mark: float | None = None) -> str:
    """Return horizontal bars, one a label.

    Args:
        values: label -> length.
        texts: label -> what is written at the bar's end.
        largest: the value that fills the width.
        mark: a value at which a line is drawn across all bars.
    """
    span = _WIDTH - _LABEL - _VALUE
    height = len(values) * (_BAR + _GAP)
    parts = []
    for row, (label, value) in enumerate(values.items()):
        y = row * (_BAR + _GAP)
        length = span * value / largest if largest else 0.0
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{_COLOURS[0]}"/>')
        parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 16}">{escape(texts[label])}</text>')
    if mark is not None and largest:
        x = _LABEL + span * mark / largest
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - _GAP}" class="mark"/>')
    return _svg(height, parts)


def divided_bar(values: Mapping[str, float], texts: Mapping[str, str]) -> str:
    """Return one bar cut in proportion to the values, with a legend line for each."""
    total = sum(values.values()) or 1.0
    parts, x = [], 0.0
    for row, (label, value) in enumerate(values.items()):
        colour = _COLOURS[row % len(_COLOURS)]
        width = _WIDTH * value / total
        y = _BAR + _GAP + row * (_BAR + 2)
        parts.append(f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
        parts.append(f'<rect x="0" y="{y + 4}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="20" y="{y + 15}">{escape(label)}: {escape(texts[label])} ({value / total:.1%})</text>')
        x += width
    return _svg(_BAR + _GAP + len(values) * (_BAR + 2), parts)


def _svg(height: int, parts: list[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'
