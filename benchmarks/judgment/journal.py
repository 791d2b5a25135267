"""Measurements on disk, one JSON line each, so that an interrupted run continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fllm_export.errors import UsageError
from fllm_export.files import locked, publish_text

Record = dict[str, Any]


class Journal:
    """The lines of one file.

    Args:
        path: the file; made with its first line.

    Attributes:
        records: all of them, in order.

    Raises:
        UsageError: another process writes the same file.
    """

    def __init__(self, path: Path) -> None:
        busy = UsageError(f"another process measures into {path}", fix="Wait until it ends, or choose another WORK")
        self._path, self._held = path, locked(path.with_suffix(".lock"), busy)
        self.records: list[Record] = []
        if path.exists():
            self.records = [json.loads(line) for line in path.read_text().splitlines()]

    def find(self, key: Record) -> Record | None:
        """Return the record that has all values of ``key``, or None."""
        matching = (each for each in self.records if all(each.get(name) == value for name, value in key.items()))
        return next(matching, None)

    def add(self, record: Record) -> None:
        """Keep a record. The whole file is replaced, so that an interruption leaves no half of a line."""
        self.records.append(record)
        publish_text(self._path, "".join(f"{json.dumps(each)}\n" for each in self.records))

    def close(self) -> None:
        """Let other processes measure into the file."""
        self._held.close()
