"""The Parquet parts of an onboarding: a row per state of an item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fllm_export.coldstart.new_items import NewItem
from fllm_export.coldstart.onboarding import Onboarded
from fllm_export.errors import BundleError, HardwareError
from fllm_export.files import publish, sha256_file

if TYPE_CHECKING:
    import pyarrow

PARTS = "parts"

_METADATA = b"fllm_batch"


@dataclass(frozen=True)
class Part:
    """A file of the output.

    Attributes:
        name: inside the folder ``parts``.
        bytes: its size.
        sha256: of its bytes.
    """

    name: str
    bytes: int
    sha256: str


def part_name(batch: int) -> str:
    """Return the name of the part of a batch, counted from 0."""
    return f"{batch:08d}.parquet"


def write_part(
    folder: Path, batch: int, facts: dict[str, Any], items: Sequence[tuple[NewItem, int]], rows: Onboarded
) -> Part:
    """Publish the rows of a batch, all or nothing; what the journal says of the batch is in the same file.

    Args:
        folder: of the output.
        batch: its number, counted from 0.
        facts: what the journal says of it.
        items: with their revisions, in the order of the rows.
        rows: what they became.
    """
    pa, parquet = _arrow()
    dim, k = rows.vectors.shape[1], rows.user_ids.shape[1]
    table = pa.table(
        {
            "item_id": pa.array(rows.item_ids, pa.int64()),
            "revision": pa.array([revision for _, revision in items], pa.int32()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), dim),
            "user_ids": pa.FixedSizeListArray.from_arrays(pa.array(rows.user_ids.reshape(-1)), k),
            "shares": pa.FixedSizeListArray.from_arrays(pa.array(rows.shares.reshape(-1)), k),
            "real_users": pa.array(rows.real_users, pa.int32()),
            "generation": pa.array(np.full(len(rows), rows.generation), pa.int64()),
            "sha256": pa.array([item.sha256 for item, _ in items], pa.string()),
        }
    )
    table = table.replace_schema_metadata({_METADATA: json.dumps(facts, sort_keys=True).encode()})
    path = folder / PARTS / part_name(batch)
    with publish(path) as file:
        parquet.write_table(table, file, compression="zstd", write_page_checksum=True)
    return described(path)


def described(path: Path) -> Part:
    """Return name, size and hash of a part."""
    return Part(path.name, path.stat().st_size, sha256_file(path))


def batch_facts(path: Path) -> dict[str, Any] | None:
    """Return what a part says of its batch; None if it is not a part."""
    pa, parquet = _arrow()
    try:
        metadata = parquet.read_schema(path).metadata or {}
        facts = json.loads(metadata[_METADATA])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def read_part(path: Path, columns: Sequence[str]) -> pyarrow.Table:
    """Return columns of a part, whose checksums are compared.

    Raises:
        BundleError: the part is missing or damaged.
    """
    pa, parquet = _arrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise BundleError(
            f"{path} is missing or damaged ({error})",
            expected="the part that the journal lists",
            fix="Copy the directory again, or onboard into a new one",
        ) from error


def stacked(column: pyarrow.ChunkedArray) -> npt.NDArray[np.generic]:
    """Return a column of lists of equal length as a matrix [rows, length]."""
    length = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: npt.NDArray[np.generic] = flat.reshape(-1, length)
    return matrix


def read_onboarded(folder: str | Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the items of an output directory, int64 [n], and their newest vectors, float32 [n, d].

    A directory that is being written can be read: what its journal lists is whole.

    Raises:
        BundleError: there is no journal, or a part is missing or damaged.
        HardwareError: pyarrow is not installed.
    """
    # The journal is above its parts.
    from fllm_export.coldstart.onboard_journal import committed_parts

    folder = Path(folder)
    tables = [read_part(folder / PARTS / part.name, ["item_id", "vector"]) for part in committed_parts(folder)]
    if not tables:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    ids = np.concatenate([table["item_id"].to_numpy() for table in tables])
    vectors = np.concatenate([stacked(table["vector"]) for table in tables]).astype(np.float32)
    _, last = np.unique(ids[::-1], return_index=True)
    newest = np.sort(len(ids) - 1 - last)
    return ids[newest], vectors[newest]


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise HardwareError(
            "vectors are written as Parquet, which needs pyarrow, which is not installed",
            fix="Run pip install 'fllm-export[onboard]'",
        ) from error
    return pa, parquet
