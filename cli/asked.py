"""What ``query`` and ``bench`` ask: a bundle about item texts, or a user table about item vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fllm_export.cli.options import encoder_for, typed
from fllm_export.directory_kinds import BUNDLE, USER_TABLE, check_kind
from fllm_export.errors import UsageError

if TYPE_CHECKING:
    from fllm_export.operating_point import OperatingPoint
    from fllm_export.runtime.runtime import Runtime
    from fllm_export.runtime.user_table import UserTable


@dataclass(frozen=True)
class Asked:
    """Something that answers, and what it is asked about.

    Attributes:
        answers: an open bundle or an open table.
        users: its user table.
        encoder: what encodes texts; None for a table.
        items: what ``answers.topk`` takes: list of texts, or float32 [n, d].
        names: a heading per item.
        point: the operating point that it was opened with, or None.
    """

    answers: Runtime | UserTable
    users: UserTable
    encoder: str | None
    items: Any
    names: list[str]
    point: OperatingPoint | None = None

    @property
    def budget_ms(self) -> float | None:
        """Budget of a call in milliseconds, as the operating point says."""
        return None if self.point is None else self.point.budget_ms


def open_asked(
    path: Path,
    texts: Sequence[str],
    file: Path | None,
    *,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
    operating_point: Path | None = None,
) -> Asked:
    """Open a bundle or a table and the items that it is asked about.

    Args:
        path: its directory.
        texts: item texts, for a bundle.
        file: a file of item texts, or for a table of item vectors.
        engine: see :meth:`fllm_export.Runtime.open`.
        encoder: likewise; for a bundle alone.
        threads: likewise.
        operating_point: likewise; it comes before what the environment says of the engine and the threads.

    Raises:
        UsageError: texts and a file were given, or neither, or texts or an encoder for a table.
        FllmError: as opening and reading raise it.
    """
    if bool(texts) == (file is not None):
        raise UsageError(
            "both texts and --file were given" if texts else "no item was given",
            expected="either texts as arguments, or --file with item texts (for a table, with item vectors)",
        )
    encoder = encoder_for(path, encoder)
    if operating_point is not None:
        engine, threads = typed("engine", engine), typed("threads", threads)
    if USER_TABLE.found_at(path):
        return _table(path, file, {"engine": engine, "threads": threads, "operating_point": operating_point})
    check_kind(path, BUNDLE, USER_TABLE)
    from fllm_export.item_texts import ItemTexts
    from fllm_export.runtime.runtime import Runtime

    items = list(texts) if file is None else list(ItemTexts.load(file).texts)
    runtime = Runtime.open(path, engine=engine, encoder=encoder, threads=threads, operating_point=operating_point)
    return Asked(runtime, runtime.users, runtime.encoder, items, items, _point(operating_point))


def _table(path: Path, file: Path | None, options: dict[str, Any]) -> Asked:
    if file is None:
        raise UsageError(
            f"{path} is a user table, and texts were given",
            expected="item vectors in --file, because a table has no encoder",
            fix="To search by text, specify a bundle",
        )
    from fllm_export.checkpoint.vector_files import open_vectors
    from fllm_export.runtime.user_table import UserTable

    vectors = open_vectors([file])
    table = UserTable.open(path, **options)
    if vectors.dim != table.dim:
        raise UsageError(
            f"{file} holds item vectors of dimension {vectors.dim}", expected=f"{table.dim}, as the user table {path}"
        )
    items = vectors.read(0, vectors.rows)
    names = [f"item vector {number}" for number in range(len(items))]
    return Asked(table, table, None, items, names, _point(options["operating_point"]))


def _point(path: Path | None) -> OperatingPoint | None:
    from fllm_export.operating_point import OperatingPoint

    return None if path is None else OperatingPoint.load(path)
