"""The answer as it is defined, in torch."""

from __future__ import annotations

import math

import numpy as np
import torch

CHUNK_ROWS = 1 << 20
LARGEST = 8127
"""The largest magnitude of an item's integers."""


def defined(
    codes: torch.Tensor, scales: torch.Tensor, blocks: int, z: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what :meth:`Engine.search` must: integer sums, float64, (score descending, id ascending)."""
    rows = len(codes)
    ids, scores, logsumexp = [], [], []
    for vector in z:
        scale = float(np.abs(vector).max()) / LARGEST
        whole = torch.from_numpy(np.rint(vector.astype(np.float64) / scale)).to(codes.device)
        found = torch.empty(rows, dtype=torch.float32, device=codes.device)
        for first in range(0, rows, CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            # Sums of integers below 2^53 are exact in float64, in any order.
            found[part] = (codes[part].float().double() @ whole * (scales[part].double() * scale)).float()
        wide = found.double()
        logsumexp.append(float(torch.logsumexp(wide, 0)) + math.log(blocks))
        need = min(rows, -(-k // blocks) + 1)
        floor = torch.topk(found, need).values[-1]
        chosen = torch.nonzero(found >= floor).flatten()
        users = (chosen[None, :] + rows * torch.arange(blocks, device=codes.device)[:, None]).flatten().cpu().numpy()
        keys = found[chosen].repeat(blocks).cpu().numpy()
        order = np.lexsort((users, -keys))[:k]
        ids.append(users[order])
        scores.append(keys[order])
    return np.array(ids), np.array(scores), np.array(logsumexp)


def is_as_defined(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], *, log_probs: bool) -> bool:
    """Return whether ids, order and scores have the same bits, and the denominators agree to 1e-5."""
    same = np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    return same and (not log_probs or np.allclose(found[2], expected[2], rtol=1e-5, atol=1e-4))
