"""A sweep as a flat table (``sweep.csv``) and as one JSON document."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from fllm_export.sweep.choice import Choice
from fllm_export.sweep.fronts import fronts
from fllm_export.sweep.point import AXES
from fllm_export.sweep.record import Conditions, Measured
from fllm_export.sweep.sweep import Sweep

CSV_NAME = "sweep.csv"

CONDITION_COLUMNS: dict[str, Callable[[Conditions], Any]] = {
    "k": lambda about: about.k,
    "rows": lambda about: about.subject["rows"],
    "items": lambda about: about.subject["items"],
    "rows_sha256": lambda about: about.subject["rows_sha256"],
    "items_sha256": lambda about: about.subject["items_sha256"],
    "cpu": lambda about: about.machine["cpu"],
    "cpus": lambda about: about.machine["cpus"],
    "isa": lambda about: about.machine["isa"],
    "version": lambda about: about.software["fllm-export"],
}
"""Columns that are the same in every row of a file, so that files of several runs can be joined."""

COLUMNS = (
    "point",
    "system",
    *AXES,
    "settings",
    *(field.name for field in fields(Measured)),
    "dominated_in_latency_by",
    "dominated_in_bytes_by",
    "finished",
    "conditions",
    *CONDITION_COLUMNS,
)


def document(swept: Sweep, choice: Choice | None = None) -> dict[str, Any]:
    """Return everything that a sweep found, JSON-ready, and the name of the point that was picked."""
    return {
        "conditions": {**asdict(swept.conditions), "key": swept.conditions.key},
        "records": _rows(swept),
        "operating_point": None if choice is None else choice.record.point,
        "left_out": swept.left_out,
        "truth_s": swept.truth_s,
        "reused": swept.reused,
        "foreign_lines": swept.foreign,
    }


def csv_text(swept: Sweep) -> str:
    """Return the table as CSV: a row per point, empty cells where an axis does not apply."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    shared = {name: read(swept.conditions) for name, read in CONDITION_COLUMNS.items()}
    for row in _rows(swept):
        writer.writerow({**shared, **row})
    return text.getvalue()


def _rows(swept: Sweep) -> list[dict[str, Any]]:
    found = fronts(swept.records)
    rows = []
    for record in swept.records:
        settings = {name: value for name, value in record.axes.items() if name not in AXES}
        rows.append(
            {
                "point": record.point,
                "system": record.system,
                **{name: record.axes.get(name) for name in AXES},
                "settings": " ".join(f"{name}={value}" for name, value in settings.items()),
                **asdict(record.measured),
                "dominated_in_latency_by": found.latency[record.point],
                "dominated_in_bytes_by": found.bytes[record.point],
                "finished": record.finished,
                "conditions": record.conditions,
            }
        )
    return rows
