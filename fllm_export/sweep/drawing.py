"""``sweep.svg``: latency against recall as a picture that stands alone."""

from __future__ import annotations

import re
from html import escape

from fllm_export import page
from fllm_export.line_charts import key
from fllm_export.sweep.fronts import groups
from fllm_export.sweep.pictures import Series, curves_of
from fllm_export.sweep.sweep import Sweep
from fllm_export.sweep.wording import group_words

FILE_NAME = "sweep.svg"

_WIDTH = 880
_EDGE = 24
_LETTER = 7.6
_HEIGHT = re.compile(r'height="(\d+)"')


def drawing(swept: Sweep) -> str:
    """Return the curve of the calls with the most points, as SVG."""
    about = swept.conditions
    found = groups(swept.records)
    group = max(found, key=lambda each: (len(found[each]), -each[0]))
    curves = curves_of(swept.records, about.k, about.subject["items"])
    title = f"Recall beside latency: {about.subject['rows']:,} users x {about.subject['dim']}"
    chart = curves.chart(
        title,
        found[group],
        "milliseconds per call (median)",
        lambda record: record.measured.median_ms,
        higher=False,
        told=False,
    )
    match = _HEIGHT.search(chart)
    if match is None:
        raise AssertionError("a chart has a height")
    top = 92
    height = top + int(match[1]) + 8
    parts = [
        f'<text x="{_EDGE}" y="30" font-size="18" font-weight="600">{escape(title)}</text>',
        f'<text x="{_EDGE}" y="52" class="hint">{escape(_note(swept, group))}</text>',
        *_legend([series for series in curves.series.values() if _in(series, chart)]),
        f'<svg x="{_EDGE}" y="{top}" width="{_WIDTH - 2 * _EDGE}" height="{match[1]}">{chart}</svg>',
    ]
    return page.picture(title, "".join(parts), _WIDTH, height)


def _note(swept: Sweep, group: tuple[int, int, str]) -> str:
    return f"{group_words(group)}; {swept.conditions.machine['isa']}; filled: nothing is better in both"


def _in(series: Series, chart: str) -> bool:
    return f"s{series.colour} " in chart


def _legend(series: list[Series]) -> list[str]:
    parts, x = [], float(_EDGE)
    for each in series:
        mark = key(each.colour, each.shape).replace("<svg ", f'<svg x="{x:.0f}" y="66" width="13" height="13" ', 1)
        parts += [mark, f'<text x="{x + 18:.0f}" y="77">{escape(each.name)}</text>']
        x += 18 + _LETTER * len(each.name) + 20
    return parts
