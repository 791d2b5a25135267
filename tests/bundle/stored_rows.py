"""What the user table of a bundle holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fllm_export.table.table import Table


def rows_of(bundle: Path) -> dict[int, tuple[np.ndarray, float]]:
    """Return the row and the bias of each user of a bundle whose table has biases."""
    chunks = Table(bundle / "users").labelled_chunks()
    return {
        user: (row, float(bias))
        for ids, rows, biases in chunks
        for user, row, bias in zip(ids.tolist(), rows, biases, strict=True)
    }
