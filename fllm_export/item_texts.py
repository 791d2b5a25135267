"""Item texts read from a file: what calibration and parity are measured on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fllm_export.errors import BundleError, HardwareError, UsageError
from fllm_export.files import sha256_file
from fllm_export.strict_json import parse

COLUMN = "text"


@dataclass(frozen=True)
class ItemTexts:
    """Texts and where they came from.

    Attributes:
        texts: in the file's order.
        source: the file's name, or ``memory``.
        sha256: of the file's bytes, or of the texts themselves.
    """

    texts: tuple[str, ...]
    source: str
    sha256: str

    @classmethod
    def load(cls, path: str | Path) -> ItemTexts:
        """Read ``.parquet``, ``.csv`` or ``.jsonl`` with a column ``text``, or ``.txt`` with a text a line.

        Raises:
            UsageError: the ending is none of these, or the file is missing.
            BundleError: the file has no column ``text``, an empty text, or no texts.
            HardwareError: Parquet is to be read and pyarrow is not installed.
        """
        file = Path(path)
        if file.suffix not in _READERS:
            raise UsageError(f"{file} ends in {file.suffix!r}", expected="one of " + ", ".join(_READERS))
        if not file.is_file():
            raise UsageError(f"{file} is missing", expected="a file of item texts")
        texts = _READERS[file.suffix](file)
        if not texts:
            raise BundleError(f"{file} holds no texts", expected="at least one")
        return cls(
            tuple(_checked(file, number, text) for number, text in enumerate(texts)), file.name, sha256_file(file)
        )

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Return ``count`` of the texts (or all, if there are fewer), drawn without replacement."""
        if len(self.texts) <= count:
            return list(self.texts)
        chosen = np.random.default_rng(seed).choice(len(self.texts), count, replace=False)
        return [self.texts[i] for i in sorted(chosen)]


def _checked(path: Path, number: int, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise BundleError(f"{path}: text {number} is {text!r}", expected="a text that is not empty")
    return text


def _read_parquet(path: Path) -> Sequence[object]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise HardwareError(
            "reading Parquet needs pyarrow, which is not installed", fix="Run pip install 'fllm-export[build]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise BundleError(f"{path} is not a Parquet file ({error})") from error
    if COLUMN not in table.column_names:
        raise _no_column(path, table.column_names)
    values: list[object] = table.column(COLUMN).to_pylist()
    return values


def _read_csv(path: Path) -> Sequence[object]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if COLUMN not in (reader.fieldnames or []):
            raise _no_column(path, list(reader.fieldnames or []))
        return [row[COLUMN] for row in reader]


def _read_jsonl(path: Path) -> Sequence[object]:
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            item = parse(line)
        except ValueError as error:
            raise BundleError(f"{path}, line {number} is not JSON ({error})") from error
        if not isinstance(item, dict) or COLUMN not in item:
            raise _no_column(path, list(item) if isinstance(item, dict) else [])
        texts.append(item[COLUMN])
    return texts


def _read_lines(path: Path) -> Sequence[object]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _no_column(path: Path, found: Sequence[str]) -> BundleError:
    return BundleError(f"{path} has the columns {', '.join(found) or 'none'}", expected=f"a column `{COLUMN}`")


_READERS = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl, ".txt": _read_lines}
