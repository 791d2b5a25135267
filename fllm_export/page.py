"""A page to look at: one HTML file with a verdict, sections and charts, without scripts or outside files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

_LIGHT = """--ink: #1c1c1c; --paper: #ffffff; --faint: #d0d0d0; --soft: #5c5c5c;
  --good: #1b6e3c; --bad: #b3261e; --c0: #3566b8; --c1: #c2742c; --c2: #3c8a5a; --c3: #8a4fa3; --c4: #777777;
  --c5: #b0285f; --c6: #128a9a; --c7: #7d6a1e; --c8: #9c5a3c;"""
_DARK = """--ink: #e8e8e8; --paper: #181818; --faint: #4a4a4a; --soft: #a8a8a8;
  --good: #7ddc9f; --bad: #ff8a80; --c0: #7fa8ee; --c1: #e8a468; --c2: #79c99a; --c3: #c79ade; --c4: #aaaaaa;
  --c5: #f07ba6; --c6: #5cc9d8; --c7: #cdb95e; --c8: #d99b7c;"""
_COLOUR = re.compile(r"--(\w+): (#\w+);")
_FONT = "svg { font: 14px system-ui, sans-serif; }"
_CHARTS = """
svg.chart { width: 100%; font-size: 14px; display: block; overflow: visible; } svg text { fill: var(--ink); }
svg .value { text-anchor: end; font-variant-numeric: tabular-nums; } svg .tick, svg .title { text-anchor: middle; }
svg .tick { fill: var(--soft); font-size: 12px; } svg .title { font-style: italic; }
svg .axis { stroke: var(--soft); } svg .track { stroke: var(--faint); stroke-width: 2; }
svg .mark { stroke: var(--bad); stroke-width: 3; } svg.key { width: 12px; height: 12px; margin-right: 0.5rem; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .c6 { fill: var(--c6); } .c7 { fill: var(--c7); }
.c8 { fill: var(--c8); }
svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } svg .strong { stroke-width: 3.2; }
svg .dashed { stroke-dasharray: 7 5; } svg .dotted { stroke: var(--soft); stroke-dasharray: 2 4; }
svg .grid { stroke: var(--faint); stroke-width: 1; }
svg .side { text-anchor: end; } svg .name { font-style: italic; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); } .s6 { stroke: var(--c6); } .s7 { stroke: var(--c7); }
.s8 { stroke: var(--c8); }
svg .hollow { fill: var(--paper); } svg .spot path { stroke-width: 1.8; } svg .spot { cursor: pointer; outline: none; }
svg .told { visibility: hidden; font-size: 13px; font-variant-numeric: tabular-nums; pointer-events: none;
  paint-order: stroke; stroke: var(--paper); stroke-width: 6px; stroke-linejoin: round; }
svg .hint { fill: var(--soft); font-size: 12px; }
svg .spot:hover .told, svg .spot:focus .told { visibility: visible; }
svg:has(.spot:hover) .spot:focus:not(:hover) .told { visibility: hidden; }
svg .spot:hover path, svg .spot:focus path { stroke: var(--ink); stroke-width: 3; }
"""
_PAGES = """
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem;
  margin: 0 auto; padding: 1rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.4rem; }
.verdict { border: 2px solid; border-left-width: 10px; border-radius: 4px; padding: 0.6rem 0.9rem; }
.verdict strong { font-size: 1.2rem; } .passed { border-color: var(--good); } .refused { border-color: var(--bad); }
.passed strong { color: var(--good); } .refused strong { color: var(--bad); }
body.wide { max-width: 76rem; } .wide p, .wide ul, .wide .verdict { max-width: 46rem; }
.scroll { overflow-x: auto; } .scroll table { min-width: 62rem; } .scroll td { overflow-wrap: normal; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); gap: 0.5rem 2rem; }
ul.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; }
table { border-collapse: collapse; width: 100%; } th, td { padding: 3px 10px 3px 0; text-align: left;
  vertical-align: top; border-top: 1px solid var(--faint); font-weight: normal; }
th:last-child, td:last-child { padding-right: 0; } thead th { font-weight: 600; overflow-wrap: normal; }
thead + tbody td:not(:first-child) { overflow-wrap: normal; }
@media (max-width: 30rem) { thead th, thead + tbody td { font-size: 0.85rem; padding-right: 6px; } }
tbody th { color: var(--soft); width: 40%; } td { font-variant-numeric: tabular-nums; }
.best { font-weight: 700; } h3 { font-size: 1rem; margin: 1.6rem 0 0.2rem; }
.listed p { margin: 0.5rem 0 0; } .listed ul { margin: 0; padding-left: 1.2rem; color: var(--soft); }
ul.labels { list-style: none; padding: 0; margin: 0.5rem 0; display: flex; flex-wrap: wrap; gap: 0.3rem; }
ul.labels li { border: 1px solid var(--faint); border-radius: 4px; padding: 0 0.45rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
ul.labels li.right { border-color: var(--good); color: var(--good); font-weight: 600; }
.differs { color: var(--bad); font-weight: 600; } .note { color: var(--soft); }
blockquote { margin: 0.6rem 0; padding-left: 0.9rem; border-left: 4px solid var(--faint); white-space: pre-wrap; }
"""
_STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}{_PAGES}{_CHARTS}"""


def page(title: str, sections: Sequence[str], *, wide: bool = False) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        sections: HTML, from the functions beside this one.
        wide: whether tables and charts may be wider than text is good to read.
    """
    content = "\n".join(sections)
    body = '<body class="wide">' if wide else "<body>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"{body}<h1>{escape(title)}</h1>\n{content}\n</body></html>\n"
    )


def picture(name: str, content: str, width: int, height: int) -> str:
    """Return charts as a picture that stands alone: SVG in light colours, with its style inside.

    Colours are written out, because many programs that read SVG know no variables.

    Args:
        name: what it shows, for readers that do not see it.
        content: SVG, from the functions for charts.
        width: in pixels.
        height: likewise.
    """
    colours = dict(_COLOUR.findall(_LIGHT))
    style = re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], f"{_FONT}{_CHARTS}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(name)}"><style>{style}</style>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{content}</svg>\n'
    )


def pair(*content: str) -> str:
    """Return HTML side by side where there is room."""
    return f'<div class="pair">{"".join(f"<div>{part}</div>" for part in content)}</div>'


def scrolled(content: str) -> str:
    """Return a wide table that narrow windows scroll sideways."""
    return f'<div class="scroll">{content}</div>'


def verdict(*, passed: bool, found: str, meaning: str) -> str:
    """Return what the reader looks for first: passed or refused, by which figure, and what that means."""
    word, kind = ("Passed", "passed") if passed else ("Refused", "refused")
    return f'<div class="verdict {kind}"><strong>{word}</strong>: {escape(found)}<br>{escape(meaning)}</div>'


def section(heading: str, *content: str) -> str:
    """Return a section: a heading of plain text and HTML below it."""
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(content)


def note(text: str) -> str:
    """Return a paragraph that explains what stands above or below it."""
    return f'<p class="note">{escape(text)}</p>'


def quote(text: str) -> str:
    """Return a text of somebody else."""
    return f"<blockquote>{escape(text)}</blockquote>"


def facts(rows: Mapping[str, str]) -> str:
    """Return names and values as a table."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table><tbody>{cells}</tbody></table>"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[Sequence[bool]], kind: str = "differs"
) -> str:
    """Return a table of plain text.

    Args:
        header: of the columns.
        rows: the cells.
        marked: of each cell whether it is marked.
        kind: what a mark means: ``differs`` from what was expected, or ``best`` of its column.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{escape(cell)}</td>' if mark else f"<td>{escape(cell)}</td>"
            for cell, mark in zip(row, marks, strict=True)
        )
        + "</tr>"
        for row, marks in zip(rows, marked, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def labels(texts: Sequence[str], right: Sequence[bool]) -> str:
    """Return short texts side by side; ``right`` says of each whether it is marked as right."""
    items = "".join(
        f'<li class="right">&#10003; {escape(text)}</li>' if marked else f"<li>{escape(text)}</li>"
        for text, marked in zip(texts, right, strict=True)
    )
    return f'<ul class="labels">{items}</ul>'


def entry(heading: str, *content: str) -> str:
    """Return a part of a section: a smaller heading of plain text and HTML below it."""
    return f"<h3>{escape(heading)}</h3>\n" + "\n".join(content)


def listed(heading: str, texts: Sequence[str]) -> str:
    """Return a line of plain text and a list below it."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<div class="listed"><p>{escape(heading)}</p><ul>{items}</ul></div>'
