from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(tiny_checkpoint: Any, tmp_path: Path) -> Path:
    """A sound Llama checkpoint: 50 users of 16 dims, mapper linear_relu [16, 32], LoRA of rank 4."""
    shutil.copytree(tiny_checkpoint("llama").base.parent, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"
