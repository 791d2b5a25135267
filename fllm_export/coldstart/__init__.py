"""The cold-start loop: likely users of a new item become its vector in the platform's recommender."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fllm_export.coldstart.item_index import ItemIndex, open_index
    from fllm_export.coldstart.onboard_options import OnboardOptions
    from fllm_export.coldstart.onboard_parts import read_onboarded
    from fllm_export.coldstart.onboarding import Onboarded, Onboarder, onboard
    from fllm_export.coldstart.vectors import Vectors

__all__ = [
    "ItemIndex",
    "OnboardOptions",
    "Onboarded",
    "Onboarder",
    "Vectors",
    "onboard",
    "open_index",
    "read_onboarded",
]

# Loaded on first use: the command line reads the options' names without NumPy.
_HOMES = {
    "ItemIndex": "item_index",
    "OnboardOptions": "onboard_options",
    "Onboarded": "onboarding",
    "Onboarder": "onboarding",
    "Vectors": "vectors",
    "onboard": "onboarding",
    "open_index": "item_index",
    "read_onboarded": "onboard_parts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fllm_export.coldstart' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fllm_export.coldstart.{_HOMES[name]}"), name)
