"""How much of the exact float32 ranking an answer holds, by ids."""

from __future__ import annotations

import numpy as np

from fllm_export.sweep.truth import I64, Best, exact_top

__all__ = ["I64", "Best", "exact_top", "recall"]


def recall(found: I64, truth: I64) -> float:
    """Return the mean share of each item's true ids that were found."""
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth, strict=True)]
    return float(np.mean(shares))
