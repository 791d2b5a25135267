"""``sweep.jsonl``: a line per finished point, written at once, so that a killed sweep goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

from fllm_export.errors import UsageError
from fllm_export.files import locked
from fllm_export.line_journal import append_line, whole_lines
from fllm_export.strict_json import parse
from fllm_export.sweep.record import Conditions, Record

FILE_NAME = "sweep.jsonl"
_LOCK_NAME = ".sweep.lock"


class Journal:
    """The lines of a directory. While it is entered as a context, no other sweep can enter it.

    Lines of other conditions (another machine, other rows, another version) stay in the file and are not used. A last
    line that a kill cut short is removed.

    Attributes:
        records: the records of these conditions, in the order of the file; the last of a point counts.
        foreign: number of lines of other conditions or other schemas.

    Args:
        folder: output directory of the sweep.
        conditions: of this run.

    Raises:
        UsageError: on entering, when another sweep works in the directory.
    """

    def __init__(self, folder: Path, conditions: Conditions) -> None:
        self.path = folder / FILE_NAME
        self.records: dict[str, Record] = {}
        self.foreign = 0
        self._lock = folder / _LOCK_NAME
        self._conditions = conditions

    def __enter__(self) -> Journal:
        found = f"another sweep is running in {self.path.parent}"
        self._held = locked(self._lock, UsageError(found, fix="Wait until it ends, or choose another --out"))
        self._take_up()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def add(self, record: Record) -> None:
        """Append a record, synced to disk."""
        append_line(self.path, record.line(self._conditions))
        self.records[record.point] = record

    def _take_up(self) -> None:
        for line in whole_lines(self.path, repair=True):
            record = _record(line)
            if record is None or record.conditions != self._conditions.key:
                self.foreign += 1
            else:
                self.records[record.point] = record


def _record(line: bytes) -> Record | None:
    try:
        return Record.from_dict(parse(line))
    except (ValueError, KeyError, TypeError):
        return None
