"""What model card, report page and command line say about the search for the form of rows."""

from __future__ import annotations

import math
from typing import Any

from fllm_export import page
from fllm_export.calibration.row_form import RowForm
from fllm_export.calibration.size_search import Tried, front
from fllm_export.line_charts import Axis, Line, Mark, key, lines
from fllm_export.table.codec_names import CODEC_NAMES

PICTURE = "reports/bytes_per_user.svg"
HEADER = ("", "bytes per user", "form of rows", "recall@{k}")
TRIED_HEADER = (*HEADER[1:], "standard error")

_WIDTH, _EDGE, _TOP = 760, 24, 40
_LETTER = 7.6
_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_TICKS = 6


def tried_forms(report: dict[str, Any]) -> list[Tried]:
    """Return the forms that were measured, by ascending bytes."""
    found = [
        Tried(RowForm(one["quant"], one["dim"], one["rounding"]), one["bytes"], one["recall"], one["margin"])
        for one in report["tried"]
    ]
    return sorted(found, key=lambda one: (one.bytes, one.recall))


def chosen_form(report: dict[str, Any]) -> RowForm:
    """Return the form that was chosen."""
    return RowForm(*(report["chosen"][name] for name in ("quant", "dim", "rounding")))


def size_facts(report: dict[str, Any] | None) -> dict[str, str]:
    """Return what a search found, in lines for people; none where there was no search."""
    if report is None:
        return {}
    chosen, texts, users = report["chosen"], report["texts"], report["users"]
    wanted = (
        f"the smallest with recall@{report['k']} of at least {report['required_recall']:g}"
        if report["requested"] == "auto"
        else f"the best of at most {report['requested']:,}"
    )
    whole = users["measured"] == users["of"]
    on = "all users" if whole else f"{users['measured']:,} of {users['of']:,} users, the best of each text among them"
    return {
        "bytes per user": f"{chosen['bytes']:,.1f} ({wanted}): {chosen_form(report)}",
        "its recall": f"recall@{report['k']} {chosen['recall']:.4f} on the {texts['choosing']} texts that chose it, "
        f"{chosen['held_out_recall']:.4f} on {texts['held_out']} others; on {on}",
    }


def front_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table of the front, below :data:`HEADER`: the chosen form has a mark."""
    chosen = chosen_form(report)
    return [
        ["chosen" if one.form == chosen else "", f"{one.bytes:,.1f}", str(one.form), f"{one.recall:.4f}"]
        for one in front(tried_forms(report))
    ]


def tried_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table of all forms that were measured, below :data:`TRIED_HEADER`."""
    return [
        [f"{one.bytes:,.1f}", str(one.form), f"{one.recall:.4f}", f"{one.margin:.4f}"] for one in tried_forms(report)
    ]


def size_chart(report: dict[str, Any], *, told: bool = True) -> str:
    """Return a chart of recall against bytes: all forms that were measured, the front, and the chosen one.

    Args:
        report: of the search.
        told: whether marks tell what they are.
    """
    tried, chosen = tried_forms(report), chosen_form(report)
    best = front(tried)
    lost = 1 - min(one.recall for one in tried)
    step = next((step for step in _STEPS if lost / step <= _TICKS), _STEPS[-1])
    count = max(1, math.ceil(lost / step - 1e-9))
    ticks = {1 - step * place: f"{1 - step * place:.3g}" for place in range(count, -1, -1)}
    x = Axis.ratios("bytes per user, everything counted", [one.bytes for one in tried])
    y = Axis(f"recall@{report['k']}", 1 - step * count, 1.0, ticks)
    marks = [
        Mark(
            one.bytes,
            one.recall,
            CODEC_NAMES.index(one.form.quant),
            _details(one, report["k"]) if told else [],
            "diamond" if one.form == chosen else "circle",
            one in best,
        )
        for one in sorted(tried, key=lambda one: (one in best, one.form == chosen))
    ]
    joined = Line([(one.bytes, one.recall) for one in best], None)
    return lines("recall against bytes per user", [joined], x, y, marks)


def size_legend(report: dict[str, Any]) -> str:
    """Return the codecs that were measured with their colours, HTML."""
    items = "".join(f"<li>{key(CODEC_NAMES.index(name), 'circle')}{name}</li>" for name in _codecs(report))
    return f'<ul class="legend">{items}</ul>'


def size_picture(report: dict[str, Any]) -> str:
    """Return the chart as a picture that stands alone, SVG."""
    chart = size_chart(report, told=False)
    height = int(chart.split('height="', 1)[1].split('"', 1)[0])
    parts, x = [], float(_EDGE)
    for name in _codecs(report):
        mark = key(CODEC_NAMES.index(name), "circle").replace(
            "<svg ", f'<svg x="{x:.0f}" y="14" width="13" height="13" ', 1
        )
        parts += [mark, f'<text x="{x + 18:.0f}" y="25">{name}</text>']
        x += 18 + _LETTER * len(name) + 20
    parts.append(f'<svg x="{_EDGE}" y="{_TOP}" width="{_WIDTH - 2 * _EDGE}" height="{height}">{chart}</svg>')
    return page.picture("recall against bytes per user", "".join(parts), _WIDTH, _TOP + height + 8)


def _codecs(report: dict[str, Any]) -> list[str]:
    used = {one.form.quant for one in tried_forms(report)}
    return [name for name in CODEC_NAMES if name in used]


def _details(one: Tried, k: int) -> list[str]:
    return [f"{one.form}: {one.bytes:,.1f} bytes per user", f"recall@{k} {one.recall:.4f}"]
