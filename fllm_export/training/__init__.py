"""FilterLLM itself: stage 1, the user vocabulary by item-oriented BPR; stage 2, LoRA fine-tuning; and evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fllm_export.training.dataset import Dataset
    from fllm_export.training.evaluation import evaluate
    from fllm_export.training.recipe import Recipe
    from fllm_export.training.trainer import train

__all__ = ["Dataset", "Recipe", "evaluate", "train"]

# Loaded on first use: evaluating a bundle needs no torch.
_HOMES = {
    "Dataset": "fllm_export.training.dataset",
    "Recipe": "fllm_export.training.recipe",
    "evaluate": "fllm_export.training.evaluation",
    "train": "fllm_export.training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fllm_export.training' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
