"""``journal.jsonl`` of an onboarding: a line per batch that is done, so that nothing is lost or done twice.

A batch is done when its part has its name: the part says which records of the source it holds, so output and position
are published by one rename. The line in the journal follows. If a crash comes between the two, the next run finds the
part and adds its line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fllm_export.coldstart.new_items import Batch, ItemSource, NewItem
from fllm_export.coldstart.onboard_parts import PARTS, Part, batch_facts, described, part_name, read_part, write_part
from fllm_export.coldstart.onboarding import Onboarded
from fllm_export.errors import BudgetError, BundleError, UsageError
from fllm_export.files import locked, publish_json
from fllm_export.line_journal import append_line, whole_lines
from fllm_export.strict_json import parse, read_object

FILE_NAME = "journal.jsonl"
CONDITIONS_NAME = "onboard.json"

_LOCK_NAME = ".onboard.lock"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A line: a batch that is done.

    Attributes:
        batch: its number, counted from 0.
        conditions: hash of the conditions of the run.
        begin: position in the source of its first record.
        end: position after its last record.
        read: number of its records.
        records_sha256: hash of its records.
        part: the rows that it gave; None where every record was known already.
    """

    batch: int
    conditions: str
    begin: int
    end: int
    read: int
    records_sha256: str
    part: Part | None

    @classmethod
    def of(cls, facts: dict[str, Any], part: Part | None) -> Entry:
        """Check a batch's facts.

        Raises:
            ValueError: one is missing or of another type.
        """
        numbers = [facts.get(name) for name in ("batch", "begin", "end", "read")]
        texts = [facts.get(name) for name in ("conditions", "records_sha256")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a number is missing")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a hash is missing")
        return cls(
            facts["batch"],
            facts["conditions"],
            facts["begin"],
            facts["end"],
            facts["read"],
            facts["records_sha256"],
            part,
        )

    @classmethod
    def parsed(cls, line: bytes) -> Entry:
        """Read a line.

        Raises:
            ValueError: it is not one.
        """
        found = parse(line)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        part = found.get("part")
        if part is None:
            return cls.of(found, None)
        if not isinstance(part, dict) or part.get("name") != part_name(found.get("batch", -1)):
            raise ValueError("the part has another name")
        if type(part.get("bytes")) is not int or not isinstance(part.get("sha256"), str):
            raise ValueError("the part has no size or no hash")
        return cls.of(found, Part(part["name"], part["bytes"], part["sha256"]))

    def facts(self) -> dict[str, Any]:
        """Return all but the part."""
        return {name: value for name, value in asdict(self).items() if name != "part"}


class OnboardJournal:
    """The state of an output directory. While it is entered as a context, no other run can enter it.

    Args:
        folder: output directory; made when missing.
        conditions: of the run: what decides which vector an item gets.

    Raises:
        UsageError: on entering, when another run works in the directory, or its vectors are of other conditions.
        BundleError: on entering, when the journal or a part is damaged.
    """

    def __init__(self, folder: Path, conditions: dict[str, Any]) -> None:
        self.folder = folder
        self._conditions = json.loads(json.dumps(conditions))
        self._key = hashlib.sha256(json.dumps(self._conditions, sort_keys=True).encode()).hexdigest()
        self.entries: list[Entry] = []
        self._states: dict[int, tuple[str, int]] = {}

    def __enter__(self) -> OnboardJournal:
        self.folder.mkdir(parents=True, exist_ok=True)
        busy = UsageError(
            f"another onboarding runs in {self.folder}", fix="Wait until it ends, or choose another --out"
        )
        self._held = locked(self.folder / _LOCK_NAME, busy)
        try:
            self._remove_leftovers()
            self._check_conditions()
            self.entries = _entries(self.folder / FILE_NAME, repair=True)
            self._adopt()
            for entry in self.entries:
                self._learn(entry)
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def __len__(self) -> int:
        """Number of items."""
        return len(self._states)

    def position_in(self, source: ItemSource) -> int:
        """Return where to read on: after the last batch, or at 0 where the source is no longer the file it was."""
        if not self.entries:
            return 0
        last = self.entries[-1]
        try:
            again = source.read(last.begin, last.read, final=True)
        except (BundleError, BudgetError):  # the position is in the middle of a record, or of a line without end
            return 0
        same = again.sha256 == last.records_sha256 and len(again.items) == last.read
        return last.end if same and last.end <= again.size else 0

    def fresh(self, items: Sequence[NewItem]) -> list[tuple[NewItem, int]]:
        """Return the items that are new or have changed, with their revisions from 1, in the same order."""
        states: dict[int, tuple[str, int]] = {}
        found = []
        for item in items:
            content, revision = states.get(item.item_id) or self._states.get(item.item_id, ("", 0))
            if content != item.sha256:
                states[item.item_id] = item.sha256, revision + 1
                found.append((item, revision + 1))
        return found

    def commit(self, batch: Batch, fresh: Sequence[tuple[NewItem, int]], rows: Onboarded | None) -> None:
        """Publish the rows of a batch, then its line.

        Args:
            batch: what was read.
            fresh: what :meth:`fresh` returned for it.
            rows: what these became; None where there are none.
        """
        number = len(self.entries)
        entry = Entry(number, self._key, batch.begin, batch.end, len(batch.items), batch.sha256, None)
        part = None if rows is None else write_part(self.folder, number, entry.facts(), fresh, rows)
        self._append(Entry.of(entry.facts(), part))
        for item, revision in fresh:
            self._states[item.item_id] = item.sha256, revision

    def _append(self, entry: Entry) -> None:
        append_line(self.folder / FILE_NAME, json.dumps(asdict(entry), sort_keys=True) + "\n")
        self.entries.append(entry)

    def _adopt(self) -> None:
        """Add the line of a part that was published just before a crash."""
        number = len(self.entries)
        path = self.folder / PARTS / part_name(number)
        facts = batch_facts(path) if path.exists() else None
        if facts is None or facts.get("conditions") != self._key or facts.get("batch") != number:
            return
        self._append(Entry.of(facts, described(path)))

    def _learn(self, entry: Entry) -> None:
        if entry.part is None:
            return
        path = self.folder / PARTS / entry.part.name
        found = described(path) if path.exists() else None
        if found != entry.part:
            raise BundleError(
                f"{path} " + ("is missing" if found is None else f"has {found.bytes} bytes and SHA-256 {found.sha256}"),
                expected=f"{entry.part.bytes} bytes and {entry.part.sha256}, as the journal says",
                fix="Copy the directory again, or onboard into a new one",
            )
        table = read_part(path, ["item_id", "sha256", "revision"])
        columns = (table[name].to_pylist() for name in ("item_id", "sha256", "revision"))
        for item_id, content, revision in zip(*columns, strict=True):
            self._states[item_id] = content, revision

    def _remove_leftovers(self) -> None:
        """Remove temporary files of a run that was killed; the lock says that nobody is writing them."""
        for path in [*self.folder.glob(f".{FILE_NAME}.*"), *(self.folder / PARTS).glob(".*")]:
            path.unlink()

    def _check_conditions(self) -> None:
        path = self.folder / CONDITIONS_NAME
        if not path.exists():
            publish_json(path, {"format_version": _FORMAT_VERSION, "conditions": self._conditions})
            return
        found = read_object(path).get("conditions")
        if found != self._conditions:
            former = found if isinstance(found, dict) else {}
            names = sorted(
                name for name in {*former, *self._conditions} if former.get(name) != self._conditions.get(name)
            )
            raise UsageError(
                f"{self.folder} holds vectors that were made with another {', '.join(names)}",
                expected="the same recommender, encoder and options in every run into one directory",
                fix="Choose another --out",
            )


def committed_parts(folder: Path) -> list[Part]:
    """Return the parts that the journal of an output directory lists, in their order.

    Raises:
        BundleError: there is no journal, or a line is damaged.
    """
    if not (folder / CONDITIONS_NAME).exists():
        raise BundleError(f"{folder} holds no {CONDITIONS_NAME}", expected="the output of `fllm-export onboard`")
    return [entry.part for entry in _entries(folder / FILE_NAME, repair=False) if entry.part is not None]


def _entries(path: Path, *, repair: bool) -> list[Entry]:
    """Return the lines; a last line that a crash cut short does not count, and ``repair`` removes it."""
    entries = []
    for number, line in enumerate(whole_lines(path, repair=repair)):
        try:
            entry = Entry.parsed(line)
            if entry.batch != number:
                raise ValueError(f"it is of batch {entry.batch}, not {number}")
        except ValueError as error:
            raise BundleError(
                f"{path}, line {number + 1} is damaged ({error})",
                expected="a line per batch, in order",
                fix="Copy the directory again, or onboard into a new one",
            ) from error
        entries.append(entry)
    return entries
