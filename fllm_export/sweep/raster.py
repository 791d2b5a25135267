"""``sweep.png``: the picture in pixels, for places that show no SVG, by resvg, which the extra ``png`` installs."""

from __future__ import annotations

import importlib.util

FILE_NAME = "sweep.png"

_PACKAGE = "resvg_py"
_ZOOM = 2.0
"""Pixels per unit of length: screens of high density show pictures of half the width."""

_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"/>'
_WORD = _EMPTY.replace("/>", '><text x="0" y="16" font-family="sans-serif">W</text></svg>')


def png(svg: str) -> bytes | None:
    """Return a picture as PNG; None without the package, and without a font, as words would be missing."""
    if importlib.util.find_spec(_PACKAGE) is None:
        return None
    import resvg_py

    if resvg_py.svg_to_bytes(svg_string=_WORD) == resvg_py.svg_to_bytes(svg_string=_EMPTY):
        return None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_ZOOM))
