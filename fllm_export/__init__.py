"""Serve models whose output vocabulary is every user of a platform."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fllm_export.errors import BudgetError, BundleError, FllmError, HardwareError, ParityError, UsageError

if TYPE_CHECKING:
    from fllm_export.bundle.bundle import Bundle
    from fllm_export.bundle.pipeline import build
    from fllm_export.bundle.publication import publish
    from fllm_export.checkpoint.checkpoint import Checkpoint
    from fllm_export.planning.estimate import estimate
    from fllm_export.runtime.runtime import Runtime
    from fllm_export.runtime.topk import TopK
    from fllm_export.runtime.user_table import UserTable

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "Bundle",
    "BundleError",
    "Checkpoint",
    "FllmError",
    "HardwareError",
    "ParityError",
    "Runtime",
    "TopK",
    "UsageError",
    "UserTable",
    "build",
    "estimate",
    "publish",
]

# Loaded on first use, so that `import fllm_export` stays quick and needs no extra.
_HOMES = {
    "Bundle": "fllm_export.bundle.bundle",
    "Checkpoint": "fllm_export.checkpoint.checkpoint",
    "Runtime": "fllm_export.runtime.runtime",
    "TopK": "fllm_export.runtime.topk",
    "UserTable": "fllm_export.runtime.user_table",
    "build": "fllm_export.bundle.pipeline",
    "estimate": "fllm_export.planning.estimate",
    "publish": "fllm_export.bundle.publication",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fllm_export' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
