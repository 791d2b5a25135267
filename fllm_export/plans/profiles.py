"""The input shapes that plans are made for."""

from __future__ import annotations

from fllm_export.plans.builder import Profile

USUAL_TILE_ROWS = 1 << 20
LARGEST_TILE_ROWS = 1 << 26
"""Rows of a tile at most. A tile has fewer than 2^31 products: tiles are smaller for many items."""

_PRODUCTS = 1 << 30


def encoder_profiles(max_length: int, max_batch: int) -> list[Profile]:
    """Return two profiles: a single item, where latency counts, and up to ``max_batch`` of them."""

    def both(least: int, usual: int, most: int) -> Profile:
        shapes = ((least, 2), (usual, max_length), (most, max_length))
        return {"input_ids": shapes, "attention_mask": shapes}

    single = both(1, 1, 1)
    return [single] if max_batch == 1 else [single, both(1, max_batch, max_batch)]


def head_profiles(dim: int, max_batch: int, chunk_rows: int, k: int, digits: int) -> list[Profile]:
    """Return two profiles for a tile of free size: one item, and up to ``max_batch``.

    Args:
        dim: d, dimension of a row.
        max_batch: items of one call at most.
        chunk_rows: of the head's selection.
        k: users that a tile returns.
        digits: of an item's integers.
    """
    profiles: list[Profile] = []
    # A tile has at least K rows, and whole chunks of them.
    least = -(-k // chunk_rows) * chunk_rows
    for batch in sorted({1, max_batch}):
        most = max(least, min(LARGEST_TILE_ROWS, _PRODUCTS // (batch * digits)) // chunk_rows * chunk_rows)
        usual = min(most, max(least, USUAL_TILE_ROWS // chunk_rows * chunk_rows))
        rows = ((least,), (usual,), (most,))
        profiles.append(
            {
                "codes": ((least, dim), (usual, dim), (most, dim)),
                "scales": rows,
                "bias": rows,
                "limbs": ((digits, 1, dim), (digits, batch, dim), (digits, batch, dim)),
                "query_scale": ((1,), (batch,), (batch,)),
            }
        )
    return profiles
