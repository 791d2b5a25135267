"""Hard negatives: the users that score highest for a training item and do not like it.

They are found as answers are served: by a scan of an int8 table of the rows as they are (ASTRA, arXiv 2409.20156,
refreshes such negatives from a search index every few epochs).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fllm_export.progress import Progress, silent
from fllm_export.runtime.user_table import UserTable
from fllm_export.training.user_store import UserStore
from fllm_export.training.user_sums import FloatArray, Positions

_ITEMS_AT_ONCE = 256
_BEFORE_LIKED = 4


def hard_negatives(
    store: UserStore,
    queries: FloatArray,
    liked: Sequence[Positions],
    count: int,
    workspace: Path,
    progress: Progress = silent,
) -> list[Positions]:
    """Return for each item the best users that do not like it, best first, int64, at most ``count``.

    Of an item the best 4 ``count`` users are looked at: one that is liked by more than three quarters of them gets
    fewer.

    Args:
        store: rows and biases as they are.
        queries: q of the items with score_u = e_u . q + b_u, float32 [n, d].
        liked: for each of these items its users.
        count: at least 1.
        workspace: a directory for the table, which is removed at the end.
        progress: counts items.
    """
    place = workspace / "hard-negatives"
    shutil.rmtree(place, ignore_errors=True)
    bias = np.concatenate([part for _, part in store.chunks()])
    table = UserTable.create(
        place, (rows for rows, _ in store.chunks()), bias=bias, quant="int8", sketch="no", cluster="no"
    )
    k, found = min(_BEFORE_LIKED * count, store.users), []
    for first in range(0, len(queries), _ITEMS_AT_ONCE):
        best = table.topk(queries[first : first + _ITEMS_AT_ONCE], k, log_probs="none").user_ids
        for users, own in zip(best, liked[first : first + _ITEMS_AT_ONCE], strict=True):
            found.append(users[~np.isin(users, own)][:count])
        progress("hard negatives", len(found), len(queries))
    shutil.rmtree(place)
    return found
