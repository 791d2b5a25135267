"""Names of recommenders and evaluators, for callers that load nothing else."""

from __future__ import annotations

from typing import Literal, get_args

ModelName = Literal["mf", "lightgcn", "ngcf"]
MODEL_NAMES: tuple[ModelName, ...] = get_args(ModelName)

Protocol = Literal["a", "b"]
"""Which known pairs are left out of a user's list: those of ``train``, or all that are not tested."""
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
