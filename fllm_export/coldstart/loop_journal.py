"""``loop.jsonl``: a line per finished arm and seed, so that a killed evaluation continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fllm_export.errors import UsageError
from fllm_export.files import locked
from fllm_export.line_journal import append_line, whole_lines
from fllm_export.strict_json import parse

FILE_NAME = "loop.jsonl"
_LOCK_NAME = ".loop.lock"


@contextmanager
def only_evaluation_in(folder: Path) -> Iterator[None]:
    """Keep other evaluations out of a directory until the block ends.

    Raises:
        UsageError: another evaluation works in the directory.
    """
    fix = "Wait until it ends, or choose another --out"
    with locked(folder / _LOCK_NAME, UsageError(f"another evaluation is running in {folder}", fix=fix)):
        yield


class LoopJournal:
    """The lines of a directory, for the only evaluation in it.

    Lines of other conditions stay in the file and are not used. A last line that a kill cut short is removed.

    Args:
        folder: of the evaluation.
        conditions: what the figures depend on; a line counts only under the same.
    """

    def __init__(self, folder: Path, conditions: str) -> None:
        self._path, self._conditions = folder / FILE_NAME, conditions
        self._found: dict[tuple[str, int], dict[str, Any]] = {}
        self._take_up()

    def get(self, arm: str, seed: int) -> dict[str, Any] | None:
        """Return what was added for an arm and a seed, or None."""
        return self._found.get((arm, seed))

    def add(self, arm: str, seed: int, facts: dict[str, Any]) -> None:
        """Append a line, synced to disk."""
        line = json.dumps({"conditions": self._conditions, "arm": arm, "seed": seed, "facts": facts}, sort_keys=True)
        append_line(self._path, f"{line}\n")
        self._found[arm, seed] = facts

    def _take_up(self) -> None:
        for line in whole_lines(self._path, repair=True):
            try:
                found = parse(line)
                if found["conditions"] == self._conditions:
                    self._found[found["arm"], int(found["seed"])] = found["facts"]
            except (ValueError, KeyError, TypeError):
                continue
