"""Rules of softmax heads for tests: small, and so that the fold-in has something to find."""

from __future__ import annotations

import numpy as np

from fllm_export.head_rule import HeadRule


def made_head(items: int, dim: int, rank: int, row_dim: int, seed: int = 0) -> HeadRule:
    """The fixed part of a head of so many items, for rows of ``row_dim``."""
    generator = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    return HeadRule(
        counts=generator.integers(1, 6, items),
        vectors=numbers(items, rank),
        log_normalisers=generator.uniform(2, 5, items).astype(np.float32),
        closed_map=numbers(dim, row_dim),
        head_map=numbers(rank, row_dim),
        strength=0.3,
        scale=0.5,
    )
