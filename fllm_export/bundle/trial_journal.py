"""The journal of a search for the form of rows: a line per form that was measured, so that a killed search goes on."""

from __future__ import annotations

import json
from pathlib import Path

from fllm_export.calibration.row_form import RowForm
from fllm_export.line_journal import append_line, whole_lines
from fllm_export.strict_json import parse

FILE_NAME = ".trials.jsonl"


class TrialJournal:
    """The recall of each form and its margin, as far as they were measured from the same inputs.

    Lines of other inputs and a last line that a kill cut short count for nothing.

    Args:
        folder: where the journal is kept.
        key: a hash of everything that decides a recall.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / FILE_NAME
        self._key = key
        self._found: dict[RowForm, tuple[float, float]] = {}
        for line in whole_lines(self._path, repair=True):
            self._take_up(line)

    def get(self, form: RowForm) -> tuple[float, float] | None:
        """Return recall and margin of a form, or None."""
        return self._found.get(form)

    def add(self, form: RowForm, recall: float, margin: float) -> None:
        """Append a form, synced to disk."""
        line = {"key": self._key, "form": [form.quant, form.dim, form.rounding], "found": [recall, margin]}
        append_line(self._path, json.dumps(line) + "\n")
        self._found[form] = (recall, margin)

    def close(self) -> None:
        """Remove the file: what it holds is in the report."""
        self._path.unlink(missing_ok=True)

    def _take_up(self, line: bytes) -> None:
        try:
            document = parse(line)
            if document["key"] == self._key:
                recall, margin = map(float, document["found"])
                self._found[RowForm(*document["form"])] = (recall, margin)
        except (ValueError, KeyError, TypeError):
            return
