"""The files that a finished sweep leaves beside ``sweep.jsonl``."""

from __future__ import annotations

from pathlib import Path

from fllm_export.files import publish_text
from fllm_export.sweep import drawing, report
from fllm_export.sweep.sweep import Sweep
from fllm_export.sweep.tabular import CSV_NAME, csv_text


def write(swept: Sweep, folder: Path) -> None:
    """Write the table, the picture and the page."""
    publish_text(folder / CSV_NAME, csv_text(swept))
    publish_text(folder / drawing.FILE_NAME, drawing.drawing(swept))
    publish_text(folder / report.FILE_NAME, report.report(swept))
