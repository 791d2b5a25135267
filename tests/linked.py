"""Tables whose link is a power."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fllm_export.link import Link
from fllm_export.table.layout import TableLayout


def set_link(directory: Path, exponent: int) -> None:
    """Give a table on disk another link; its rows stay as they are."""
    replace(TableLayout.load(directory), link=Link(exponent)).save(directory)
