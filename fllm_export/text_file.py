"""Columns of a text file, each format by its own rules of what a line is.

======================  ===================================================  ==============================
ending                  a record                                             a line ends at
======================  ===================================================  ==============================
``.txt``                a line, the column ``text``                          LF, CR LF, CR
``.csv``, ``.tsv``      RFC 4180 with a header; quoted cells may span lines  LF, CR LF, CR
``.jsonl``, ``.ndjson``  a line with a JSON object                            LF
``.parquet``            a row                                                --
======================  ===================================================  ==============================

Other characters that Unicode calls line ends, such as U+2028, are part of a text. Endings may be in upper case. Every
format but Parquet may be compressed, with a second ending ``.gz``. Text is UTF-8, with or without a byte order mark,
or UTF-16 or UTF-32 with one.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BudgetError, BundleError, HardwareError, UsageError
from fllm_export.strict_json import parse
from fllm_export.system_errors import limit_error

if TYPE_CHECKING:
    import pyarrow

TEXT = "text"

_EXPANDED_BYTES_MAX = 4 << 30
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END = re.compile(r"\r\n|\n|\r")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")

Record = tuple[int, dict[str, object]]
"""The number of a record's first line, from 1, and its values by column."""


@dataclass(frozen=True)
class Columns:
    """Some columns of a file.

    Attributes:
        path: the file.
        values: by column; a list, or an Arrow column of a Parquet file.
        lines: the first line of each record, from 1; None for Parquet.
    """

    path: Path
    values: dict[str, Any]
    lines: list[int] | None

    def where(self, row: int) -> str:
        """Return the words that messages use for a record, numbered from 0."""
        return f"{self.path}, row {row}" if self.lines is None else f"{self.path}, line {self.lines[row]}"

    def objects(self, column: str) -> list[object]:
        """Return a column's values as they are.

        Raises:
            BundleError: a string of a Parquet file is not UTF-8.
        """
        values = self.values[column]
        if isinstance(values, list):
            return values
        try:
            found: list[object] = values.to_pylist()
        except UnicodeDecodeError:
            raise BundleError(f"{self._not_unicode(values)}: `{column}` is not UTF-8", expected="UTF-8") from None
        return found

    def _not_unicode(self, values: Any) -> str:
        for row, value in enumerate(values):
            try:
                value.as_py()
            except UnicodeDecodeError:
                return self.where(row)
        return str(self.path)

    def integers(self, column: str) -> npt.NDArray[np.int64]:
        """Return a column of integers, int64. Strings of digits count only where a format has nothing else (CSV, TSV).

        Raises:
            BundleError: a value is missing, is not an integer, or is outside int64.
        """
        values = self.values[column]
        if not isinstance(values, list):
            return self._arrow_integers(column, values)
        numbers = np.empty(len(values), np.int64)
        for row, value in enumerate(values):
            number = int(value) if isinstance(value, str) and self._is_table and _INTEGER.fullmatch(value) else value
            if not isinstance(number, int) or isinstance(number, bool) or not -(2**63) <= number < 2**63:
                raise BundleError(f"{self.where(row)}: `{column}` is {value!r:.60}", expected="an integer")
            numbers[row] = number
        return numbers

    @property
    def _is_table(self) -> bool:
        return _kind(self.path) in (".csv", ".tsv")

    def _arrow_integers(self, column: str, values: pyarrow.ChunkedArray) -> npt.NDArray[np.int64]:
        import pyarrow as pa

        if not pa.types.is_integer(values.type):
            raise BundleError(f"{self.path}: `{column}` is of type {values.type}", expected="integers")
        if values.null_count:
            raise BundleError(f"{self.path}: `{column}` has {values.null_count} nulls", expected="an integer per row")
        try:
            numbers: npt.NDArray[np.int64] = values.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise BundleError(f"{self.path}: `{column}`: {error}", expected="integers of 64 bits") from error
        return numbers


def read_columns(path: str | Path, columns: Sequence[str] = (TEXT,)) -> Columns:
    """Read some columns of a text file.

    Args:
        path: ``.txt``, ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson``, each also with ``.gz``; or ``.parquet``.
        columns: names of columns that the file must have; ``.txt`` has the column ``text`` alone.

    Raises:
        UsageError: the ending is none of these, or there is no such file.
        BundleError: the file is damaged or in another encoding, or lacks a column.
        BudgetError: a compressed file expands to more than 4 GiB.
        HardwareError: Parquet is to be read and pyarrow is not installed.
    """
    path = Path(path)
    kind = _kind(path)
    if not path.exists() or path.is_dir():
        found = "is a directory" if path.is_dir() else "is missing"
        raise UsageError(f"{path} {found}", expected="a file with " + ", ".join(f"`{name}`" for name in columns))
    if kind == ".parquet":
        return _read_parquet(path, columns)
    rows = list(_RECORDS[kind](path, _text(path), columns))
    values: dict[str, Any] = {name: [row[name] for _, row in rows] for name in columns}
    return Columns(path, values, [line for line, _ in rows])


def _kind(path: Path) -> str:
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    if kind not in ENDINGS or (kind == ".parquet" and name.endswith(".gz")):
        ending = path.suffix if kind != ".parquet" else "".join(path.suffixes[-2:])
        raise UsageError(f"{path} ends in {ending!r}", expected="one of " + ", ".join(ENDINGS) + " (also with .gz)")
    return kind


def _text(path: Path) -> str:
    """Return the file's content, expanded and decoded."""
    try:
        raw = path.read_bytes() if path.suffix.lower() != ".gz" else _expanded(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BundleError(f"{path} is not a gzip file, or is cut off ({error})", fix="Copy the file again") from error
    except OSError as error:
        unreadable = UsageError(f"{path} cannot be read ({error.strerror})", expected="a file of item texts")
        raise limit_error(error, path) or unreadable from error
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _encoding(path, line, f"is not {encoding.upper()} (byte 0x{raw[error.start]:02x})") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _encoding(path, line, "holds a zero byte, as UTF-16 does")
    return text


def _encoding(path: Path, line: int, found: str) -> BundleError:
    return BundleError(
        f"{path}, line {line} {found}",
        expected="UTF-8, or UTF-16 with a byte order mark",
        fix="Convert the file with iconv, for example: iconv -f LATIN1 -t UTF-8",
    )


def _expanded(path: Path) -> bytes:
    with gzip.open(path) as file:
        raw = file.read(_EXPANDED_BYTES_MAX + 1)
    if len(raw) > _EXPANDED_BYTES_MAX:
        raise BudgetError(f"{path} expands to more than {_EXPANDED_BYTES_MAX} bytes", expected="a smaller file")
    return raw


def _numbered(path: Path, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers. Blank lines at the end are none; one between texts would shift their numbers."""
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise _blank(path, number)
        yield number, line


def _blank(path: Path, line: int) -> BundleError:
    return BundleError(f"{path}, line {line} is blank", expected="a record on every line", fix="Remove the blank line")


def _lines(path: Path, text: str, columns: Sequence[str]) -> Iterator[Record]:
    _require(str(path), [TEXT], columns)
    for number, line in _numbered(path, _LINE_END.split(text)):
        yield number, {TEXT: line}


def _json_lines(path: Path, text: str, columns: Sequence[str]) -> Iterator[Record]:
    for number, line in _numbered(path, text.split("\n")):
        try:
            item = parse(line)
        except ValueError as error:
            raise BundleError(
                f"{path}, line {number} (text {number - 1}) is not JSON ({error})", expected="a JSON object per line"
            ) from error
        if not isinstance(item, dict):
            raise BundleError(f"{path}, line {number} holds a JSON {type(item).__name__}", expected="a JSON object")
        _require(f"{path}, line {number}", list(item), columns)
        yield number, item


def _table(path: Path, text: str, columns: Sequence[str], delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    blank = 0
    first = 1
    try:
        for row in reader:
            line, first = first, reader.line_num + 1
            if not row:
                blank = blank or line
                continue
            if blank:
                raise _blank(path, blank)
            if not header:
                _require(str(path), row, columns)
                header = row
                continue
            if len(row) != len(header):
                raise BundleError(
                    f"{path}, line {line} has {len(row)} cells",
                    expected=f"{len(header)}, as the header has",
                    fix="Put quotes around a text that holds the separator",
                )
            yield line, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise BundleError(f"{path}, line {first} is not CSV ({error})", expected="quotes in pairs") from error


def _read_parquet(path: Path, columns: Sequence[str]) -> Columns:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise HardwareError(
            "reading Parquet needs pyarrow, which is not installed", fix="Run pip install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require(str(path), names, columns)
            table = file.read(columns=list(columns))
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", expected="a Parquet file") from error
    except (pa.ArrowException, OSError, MemoryError) as error:
        damaged = BundleError(f"{path} is not a Parquet file ({error})", fix="Copy the file again")
        raise limit_error(error, path) or damaged from error
    return Columns(path, {name: table.column(name) for name in columns}, None)


def _require(where: str, found: Sequence[str], columns: Sequence[str]) -> None:
    for name in columns:
        if found.count(name) != 1:
            names = ", ".join(map(repr, found)) or "none"
            raise BundleError(f"{where} has the columns {names}", expected=f"a column {name!r}, once")


_RECORDS: dict[str, Callable[[Path, str, Sequence[str]], Iterator[Record]]] = {
    ".txt": _lines,
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
ENDINGS = (".parquet", *_RECORDS)
