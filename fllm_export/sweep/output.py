"""The files that a finished sweep leaves beside ``sweep.jsonl``."""

from __future__ import annotations

from pathlib import Path

from fllm_export.errors import ParityError
from fllm_export.files import publish, publish_text
from fllm_export.operating_point import FILE_NAME as OPERATING_POINT
from fllm_export.sweep import drawing, raster, report
from fllm_export.sweep.choice import Choice, operating_point
from fllm_export.sweep.sweep import Sweep
from fllm_export.sweep.tabular import CSV_NAME, csv_text
from fllm_export.sweep.wording import milliseconds


def write(swept: Sweep, folder: Path, choice: Choice | None = None) -> None:
    """Write the table, the picture, the page and, where one was found, the operating point.

    An operating point of an earlier sweep does not stay: it would not be that of the other files.
    """
    publish_text(folder / CSV_NAME, csv_text(swept))
    picture = drawing.drawing(swept)
    publish_text(folder / drawing.FILE_NAME, picture)
    _write_pixels(folder / raster.FILE_NAME, picture)
    publish_text(folder / report.FILE_NAME, report.report(swept, choice))
    path = folder / OPERATING_POINT
    if choice is not None and choice.satisfied:
        operating_point(choice, swept.conditions).save(path)
    else:
        path.unlink(missing_ok=True)


def _write_pixels(path: Path, picture: str) -> None:
    """Write a picture in pixels, or remove one of an earlier sweep where pictures cannot be drawn here."""
    pixels = raster.png(picture)
    if pixels is None:
        path.unlink(missing_ok=True)
        return
    with publish(path) as file:
        file.write(pixels)


def require(choice: Choice, k: int) -> None:
    """Check that a point satisfies what was required.

    Raises:
        ParityError: none does; the nearest is named.
    """
    if choice.satisfied:
        return
    required, found = choice.required, choice.record.measured
    budget = "" if required.budget_ms is None else f" and a p99 of at most {required.budget_ms:g} ms"
    raise ParityError(
        f"no point has a recall@{k} of at least {required.recall:g}{budget}; {choice.record.point} comes nearest, with "
        f"recall {found.recall:.4f} and p99 {milliseconds(found.p99_ms)} ms",
        expected="a point of the sweep that satisfies what is requested",
        fix="Sweep more points (--quant, --dim, --sketch, --threads), or require less",
    )
