"""The users that rows and item vectors rank first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fllm_export.evaluation.metrics import Ranking
from fllm_export.training.user_sums import Positions

SELECTION_K = 20

_ITEMS_AT_ONCE = 512


def ranking(z: Tensor, rows: Tensor, truth: Sequence[Positions], bias: Tensor | None = None) -> Ranking:
    """Return how well the 20 users of the highest scores are those of each item.

    Args:
        z: item vectors, float32 [n, d].
        rows: user rows, float32 [U, d].
        truth: for each item its users.
        bias: of the users, float32 [U]; none when not given.
    """
    k, parts = min(SELECTION_K, len(rows)), []
    for first in range(0, len(z), _ITEMS_AT_ONCE):
        scores = z[first : first + _ITEMS_AT_ONCE] @ rows.T
        parts.append((scores if bias is None else scores + bias).topk(k, dim=1).indices)
    return Ranking.of(torch.cat(parts).numpy(), truth)
