"""Item texts, from a file or from what a caller has in memory, every one of them checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export.errors import BundleError, FllmError, UsageError
from fllm_export.files import sha256_file
from fllm_export.text_file import TEXT, Columns, read_columns


@dataclass(frozen=True)
class ItemTexts:
    """Texts and where they came from.

    Attributes:
        texts: in the order given.
        source: the file's name, or ``memory``.
        sha256: of the file's bytes, or of the texts themselves.
    """

    texts: tuple[str, ...]
    source: str
    sha256: str

    @classmethod
    def load(cls, path: str | Path) -> ItemTexts:
        """Read the column ``text`` of a file, or the lines of a ``.txt`` (see :mod:`fllm_export.text_file`).

        Raises:
            UsageError: the file's ending is unknown, or there is no such file.
            BundleError: the file is damaged, has no column ``text`` or no texts, or a text is empty or not Unicode;
                the line and the number of the text are named.
            HardwareError: Parquet is to be read and pyarrow is not installed.
        """
        columns = read_columns(path)
        texts = text_column(columns)
        if not texts:
            raise BundleError(f"{path} holds no texts", expected="at least one")
        return cls(tuple(texts), columns.path.name, sha256_file(columns.path))

    @classmethod
    def of(cls, source: Any, argument: str) -> ItemTexts:
        """Return the texts of a file (``str`` or ``Path``), or those that :func:`as_texts` takes.

        Raises:
            UsageError: the argument is neither, or is empty.
            BundleError: as :meth:`load`.
        """
        if isinstance(source, str | Path):
            return cls.load(source)
        texts = as_texts(source, argument)
        digest = hashlib.sha256(json.dumps(texts).encode())
        return cls(tuple(texts), "memory", digest.hexdigest())

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Return ``count`` of the texts (or all, if there are fewer), drawn without replacement."""
        return self.split(count, seed)[0]

    def split(self, count: int, seed: int = 0) -> tuple[list[str], list[str]]:
        """Return what :meth:`sample` does, and all other texts, both in the order of the file."""
        if len(self.texts) <= count:
            return list(self.texts), []
        chosen = set(np.random.default_rng(seed).choice(len(self.texts), count, replace=False).tolist())
        parts: tuple[list[str], list[str]] = ([], [])
        for number, text in enumerate(self.texts):
            parts[number not in chosen].append(text)
        return parts


def as_texts(values: Any, argument: str) -> list[str]:
    """Return the texts that a caller passed: a list, tuple, generator, Series, or array of strings.

    Args:
        values: any iterable of strings with an order; pandas, polars, NumPy and Arrow columns are.
        argument: its name, for messages.

    Raises:
        UsageError: it is something else, is empty, or one of its texts is empty or not Unicode.
    """
    if isinstance(values, str | bytes):
        raise UsageError(f"{argument} is a single text", expected="a list of texts", fix="Put it in a list: [text]")
    dimensions = getattr(values, "ndim", 1)
    if isinstance(values, Mapping | Set) or not isinstance(values, Iterable) or dimensions != 1:
        kind = type(values).__name__ + (f" of {dimensions} dimensions" if dimensions != 1 else "")
        raise UsageError(f"{argument} is a {kind}", expected="a list, a Series or a 1-d array of texts")
    plain = values.to_pylist() if hasattr(values, "to_pylist") else values
    texts = [_checked(text, number, lambda n: f"{argument}: text {n}", UsageError) for number, text in enumerate(plain)]
    if not texts:
        raise UsageError(f"{argument} is empty", expected="at least one text")
    return texts


def text_column(columns: Columns, name: str = TEXT) -> list[str]:
    """Return a column of texts, each of them checked.

    Raises:
        BundleError: a text is missing, empty or not Unicode; the line and the number of the text are named.
    """

    def where(row: int) -> str:
        return f"{columns.where(row)}: {name} {row}"

    return [_checked(text, row, where, BundleError) for row, text in enumerate(columns.objects(name))]


def _checked(text: object, number: int, where: Callable[[int], str], kind: type[FllmError]) -> str:
    if not isinstance(text, str) or not text.strip():
        raise kind(f"{where(number)} is {text!r:.60}", expected="a text that is not empty")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise kind(
                f"{where(number)} holds U+{ord(text[error.start]):04X} at character {error.start}",
                expected="Unicode text without a lone surrogate",
                fix="Decode the original bytes with their own encoding",
            ) from error
    return str(text)
