"""New items as they arrive: JSON lines or Parquet, read from a position on, in files that may still grow.

A record has ``item_id``, ``text`` (or ``vector``, for a user table without an encoder), and if need be ``users``: the
ids of all users who interacted with the item so far. A later record of the same item replaces the earlier one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from fllm_export import arguments
from fllm_export.errors import BudgetError, BundleError, FllmError, HardwareError, UsageError
from fllm_export.strict_json import parse
from fllm_export.system_errors import limit_error

Content = Literal["text", "vector"]

_LINE_BYTES_MAX = 16 << 20
_ID, _USERS = "item_id", "users"


@dataclass(frozen=True)
class NewItem:
    """An item as one record describes it.

    Attributes:
        item_id: of 0 or more.
        content: its text, or the numbers of its vector.
        users: ids of users who interacted with it, ascending, each once.
        sha256: of all of that.
    """

    item_id: int
    content: str | tuple[float, ...]
    users: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, record: dict[str, Any], kind: Content, dim: int | None = None) -> NewItem:
        """Check a record. A vector has ``dim`` numbers where that is given.

        Raises:
            UsageError: a field is missing or has another type, a text is empty, or a vector has another length. Other
                fields are ignored.
        """
        missing = [name for name in (_ID, kind) if name not in record]
        if missing:
            raise UsageError(f"the record has no `{missing[0]}`", expected=f"`{_ID}`, `{kind}` and maybe `{_USERS}`")
        item_id = arguments.integer(record[_ID], _ID, least=0, most=(1 << 63) - 1)
        listed = record.get(_USERS)
        if listed is not None and not isinstance(listed, list):
            raise UsageError(f"`{_USERS}` is {listed!r:.60}", expected="a list of user ids")
        users = tuple(sorted({arguments.integer(user, _USERS, least=0, most=(1 << 63) - 1) for user in listed or ()}))
        content = _text(record[kind]) if kind == "text" else _vector(record[kind], dim)
        digest = hashlib.sha256(json.dumps([item_id, content, users]).encode()).hexdigest()
        return cls(item_id, content, users, digest)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"`text` is {value!r:.60}", expected="a text that is not empty")
    return value


def _vector(value: Any, dim: int | None) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"`vector` is {value!r:.60}", expected="a list of numbers")
    if dim is not None and len(value) != dim:
        raise UsageError(f"`vector` has {len(value)} numbers", expected=f"{dim}, as the rows of the user table")
    numbers = np.array([arguments.real(number, "vector", least=-np.inf) for number in value])
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise UsageError("`vector` has a number outside float32's range", expected="finite numbers")
    return tuple(rounded.tolist())


@dataclass(frozen=True)
class Batch:
    """Records that were read in one go.

    Attributes:
        items: in the order of the file.
        begin: position of the first of them: bytes of a JSON-lines file, rows of a Parquet file.
        end: position after the last of them.
        size: position of the end of the file when they were read.
        unreadable: why nothing can be read of the file as it is, where it may be being written; None where it can.
    """

    items: list[NewItem]
    begin: int
    end: int
    size: int
    unreadable: str | None = None

    @property
    def sha256(self) -> str:
        """Hash of what was read."""
        return hashlib.sha256("".join(item.sha256 for item in self.items).encode()).hexdigest()


class ItemSource(Protocol):
    """A file of records that may grow at its end.

    Attributes:
        unit: of positions.
    """

    unit: str

    def read(self, begin: int, most: int, *, final: bool) -> Batch:
        """Return at most ``most`` records from a position on; none where there is nothing new.

        Args:
            begin: a position that was the end of another batch, or 0.
            most: of records.
            final: whether the file has been written to its end. Otherwise what is not yet whole is left for later.

        Raises:
            BundleError: the first record is invalid (one that is not the first ends the batch before it), or the file
                ends before the position.
        """
        ...


class JsonLines:
    """A file with a JSON object per line. A line that has no line end yet belongs to nobody.

    Args:
        path: the file.
        kind: what records have.
        dim: of vectors; any where it is not given.
    """

    unit = "bytes"

    def __init__(self, path: Path, kind: Content, dim: int | None = None) -> None:
        self.path = path
        self._kind, self._dim = kind, dim

    def read(self, begin: int, most: int, *, final: bool) -> Batch:
        """Return whole lines, as :class:`ItemSource` says; blank lines are skipped.

        Raises:
            BundleError: as :class:`ItemSource` says.
            BudgetError: the first line has more than 16 MiB; one that is not the first ends the batch before it.
        """
        items: list[NewItem] = []
        end = begin
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < begin:
                raise _shorter(self.path, size, begin, self.unit)
            file.seek(begin)
            while len(items) < most:
                line = file.readline(_LINE_BYTES_MAX + 1)
                if len(line) > _LINE_BYTES_MAX:
                    if items:
                        break
                    raise BudgetError(
                        f"{self._place(end)} has more than {_LINE_BYTES_MAX} bytes",
                        expected="a record of at most that size per line",
                    )
                if not line or not (final or line.endswith(b"\n")):
                    break
                if line.strip():
                    try:
                        items.append(self._item(line, end))
                    except BundleError:
                        if items:
                            break
                        raise
                end += len(line)
        return Batch(items, begin, end, max(size, end))

    def _item(self, line: bytes, at: int) -> NewItem:
        try:
            record = parse(line)
            if not isinstance(record, dict):
                raise UsageError(f"it holds a JSON {type(record).__name__}", expected="a JSON object per line")
            return NewItem.of(record, self._kind, self._dim)
        except ValueError as error:
            found, expected = f"it is not JSON ({error})", "a JSON object per line"
        except UsageError as error:
            found, expected = error.found, error.expected or "a record"
        raise BundleError(
            f"{self._place(at)}: {found}",
            expected=expected,
            fix="Correct the line and run again; what stands before it is done",
        )

    def _place(self, at: int) -> str:
        """Return which line begins at a position, for people; it is counted when it is needed."""
        number, left = 1, at
        with self.path.open("rb") as file:
            while left and (part := file.read(min(left, _LINE_BYTES_MAX))):
                number, left = number + part.count(b"\n"), left - len(part)
        return f"{self.path}, line {number} (at byte {at})"


class ParquetItems:
    """A Parquet file with a row per record, replaced as a whole by one with more rows at its end.

    Args:
        path: the file.
        kind: what records have.
        dim: of vectors; any where it is not given.

    Raises:
        HardwareError: pyarrow is not installed.
    """

    unit = "rows"

    def __init__(self, path: Path, kind: Content, dim: int | None = None) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise HardwareError(
                "reading Parquet needs pyarrow, which is not installed", fix="Run pip install 'fllm-export[onboard]'"
            ) from error
        self.path = path
        self._kind, self._dim = kind, dim
        self._parquet = parquet
        self._decoded: tuple[tuple[int, ...], Any] | None = None

    def read(self, begin: int, most: int, *, final: bool) -> Batch:
        """Return rows, as :class:`ItemSource` says. A file that is not whole yet has nothing new."""
        try:
            records, size = self._records(begin, most)
        except _NotParquetError as error:
            if final:
                raise BundleError(error.found, fix=error.fix) from error
            return Batch([], begin, begin, begin, error.found)
        items: list[NewItem] = []
        for row, record in enumerate(records, begin):
            try:
                if record is None:
                    raise UsageError("it holds text that is not UTF-8", expected="text in UTF-8")
                items.append(NewItem.of(record, self._kind, self._dim))
            except UsageError as error:
                if items:
                    break
                raise BundleError(f"{self.path}, row {row}: {error.found}", expected=error.expected) from error
        return Batch(items, begin, begin + len(items), size)

    def _records(self, begin: int, most: int) -> tuple[list[dict[str, Any] | None], int]:
        """Return the records from a row on, and the number of the file's rows."""
        with self._whole():
            # Before the file is opened: if it is replaced in between, the next read decodes the group again.
            now = _state(self.path)
        with self._opened() as file:
            rows = int(file.metadata.num_rows)
            if rows < begin:
                raise _shorter(self.path, rows, begin, self.unit)
            found: list[dict[str, Any] | None] = []
            first = 0
            for group in range(file.metadata.num_row_groups):
                last = first + int(file.metadata.row_group(group).num_rows)
                if last > begin and len(found) < most:
                    start = max(begin - first, 0)
                    part = self._group(file, group, now).slice(start, most - len(found))
                    found += _dicts(part)
                first = last
            return found, rows

    def _group(self, file: Any, group: int, now: tuple[int, ...]) -> Any:
        """Return the rows of a group; the last one stays decoded until another is asked for or the file changes."""
        if self._decoded is None or self._decoded[0] != (*now, group):
            self._decoded = None
            names = [name for name in (_ID, self._kind, _USERS) if name in file.schema_arrow.names]
            with self._whole():
                self._decoded = (*now, group), file.read_row_group(group, columns=names)
        return self._decoded[1]

    def _opened(self) -> Any:
        with self._whole():
            return self._parquet.ParquetFile(self.path)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Tell a file that is damaged, or not whole yet, from a limit of the system."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = f"{self.path} is not a Parquet file, or is damaged ({error})"
            raise limit_error(error, self.path) or _NotParquetError(reason, fix="Write it again") from error


class _NotParquetError(BundleError):
    """A file that cannot be read as Parquet, perhaps because it is being written."""


def _dicts(rows: Any) -> list[dict[str, Any] | None]:
    """Return the rows of an Arrow table; None in place of one with text that is not UTF-8."""
    try:
        found: list[dict[str, Any] | None] = rows.to_pylist()
    except UnicodeDecodeError:
        half = rows.num_rows // 2
        return [*_dicts(rows.slice(0, half)), *_dicts(rows.slice(half))] if half else [None]
    return found


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written again."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _shorter(path: Path, size: int, begin: int, unit: str) -> FllmError:
    return BundleError(
        f"{path} has {size} {unit}, and {begin} were read before",
        expected="a file that grows at its end",
        fix="Run again: a file that was replaced is read from its beginning, and nothing is done twice",
    )


def open_items(path: Path, kind: Content, dim: int | None = None) -> ItemSource:
    """Open a file of new items by its ending. Records with vectors of another dimension than ``dim`` are invalid.

    Raises:
        UsageError: the ending is another, or there is no such file.
        HardwareError: it is Parquet and pyarrow is not installed.
    """
    if not path.is_file():
        raise UsageError(f"{path} is {'a directory' if path.is_dir() else 'missing'}", expected="a file of new items")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return JsonLines(path, kind, dim)
    if path.suffix.lower() == ".parquet":
        return ParquetItems(path, kind, dim)
    raise UsageError(f"{path} ends in {path.suffix!r}", expected="one of " + ", ".join(ITEM_ENDINGS))


ITEM_ENDINGS: Sequence[str] = (".jsonl", ".ndjson", ".parquet")
