"""Rows and items of a tiny sweep, as files and as a subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export.sweep.grid import Limits
from fllm_export.sweep.subject import Subject, open_subject

ROWS, DIM, ITEMS = 3_000, 32, 12


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``rows.npy`` and ``items.npy``: vectors whose directions differ in how much they matter."""
    folder = tmp_path_factory.mktemp("swept")
    generator = np.random.default_rng(3)
    weights = (np.arange(1, DIM + 1) ** -0.5).astype(np.float32)
    np.save(folder / "rows.npy", generator.standard_normal((ROWS, DIM), dtype=np.float32) * weights)
    np.save(folder / "items.npy", generator.standard_normal((ITEMS + 20, DIM), dtype=np.float32) * weights)
    return folder


@pytest.fixture
def subject(files: Path) -> Subject:
    """The same, opened."""
    return open_subject(files / "rows.npy", files / "items.npy", ITEMS, 1, lambda *_: None)


@pytest.fixture
def limits() -> Limits:
    """What the files allow on a machine where only two engines run."""
    return Limits(DIM, 16, ITEMS, 1, {"native": None, "numpy": None, "cuda": "there is no GPU"})
