"""User ids: non-negative int64 numbers, each once in a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError

Ids = npt.NDArray[np.int64]

_BUCKET_ROWS = 1 << 22


def check_ids(ids: npt.ArrayLike, rows: int, first: int = 0) -> Ids:
    """Return ``ids`` as int64 [rows]; nothing else than an integer is converted.

    Args:
        ids: integers of any type, one per row.
        rows: how many rows there are.
        first: number of the first of them, for messages.

    Raises:
        UsageError: they are not integers or not one for each row, or one is out of range, with its row.
    """
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" or array.shape != (rows,):
        raise UsageError(f"ids are {array.dtype} {list(array.shape)}", expected=f"integers [{rows}], one per row")
    invalid = (array < 0) | (array > np.iinfo(np.int64).max)
    if invalid.any():
        at = int(np.argmax(invalid))
        raise UsageError(f"row {first + at} has the user id {array[at]}", expected="ids from 0 to 2^63 - 1")
    return array.astype(np.int64)


def check_unique(parts: Sequence[Ids]) -> None:
    """Check that no id occurs twice in the union of ``parts``, each of them ascending.

    Works bucket by bucket of the id range, so that memory stays bounded however long the parts are.

    Raises:
        UsageError: naming the first id that occurs twice.
    """
    parts = [part for part in parts if len(part)]
    ordered = sorted(parts, key=lambda part: int(part[0]))
    if all(a[-1] < b[0] for a, b in pairwise(ordered)):
        for part in parts:
            _check_strictly_ascending(part)
        return
    positions = [0] * len(parts)
    while any(position < len(part) for position, part in zip(positions, parts, strict=True)):
        step = max(1, _BUCKET_ROWS // len(parts))
        # The smallest of the parts' next limits: every id up to it is in this bucket.
        limit = min(
            int(part[min(position + step, len(part)) - 1])
            for position, part in zip(positions, parts, strict=True)
            if position < len(part)
        )
        ends = [int(np.searchsorted(part, limit, side="right")) for part in parts]
        bucket = np.concatenate([part[a:b] for part, a, b in zip(parts, positions, ends, strict=True)])
        _check_strictly_ascending(np.sort(bucket))
        positions = ends


def _check_strictly_ascending(ids: Ids) -> None:
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    if len(repeated):
        raise UsageError(f"user id {ids[repeated[0]]} occurs more than once", expected="each id once")
