"""Importing the files of the official FilterLLM code: base LLM, PEFT adapter and ``custom_weights.pt``.

The training script writes ``{"mapper": state_dict, "user_embeddings": state_dict}``; the same tensors under flat
names (``mapper.weight``, ``user_embeddings.weight``) are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.checkpoint.mapper import PREFIX, Mapper
from fllm_export.checkpoint.row_sources import ArrayRows
from fllm_export.checkpoint.spec import MapperKind
from fllm_export.checkpoint.torch_file import read_torch_file, tensor_array
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError

if TYPE_CHECKING:
    import torch

USERS = "user_embeddings.weight"

# Targets of the guidance loss in training; the score does not use them.
_TRAINING_ONLY = "item_embeddings."


@dataclass(frozen=True)
class OfficialParts:
    """What ``custom_weights.pt`` holds of a FilterLLM."""

    mapper: Mapper
    users: UserRows


def read_parts(custom_weights: Path, mapper: MapperKind, ids: npt.ArrayLike | None) -> OfficialParts:
    """Read the mapper and the user rows, which stay where they are.

    Args:
        custom_weights: the file with the tensors ``mapper.*`` and ``user_embeddings.weight``.
        mapper: the mapper's kind; ``identity`` leaves the file's mapper out.
        ids: the user id of each row, integers [N], or None.

    Raises:
        BundleError: the file or a tensor is missing, damaged, of the wrong shape or dtype, or holds code.
        UsageError: the ids are not one integer per row, each of them once.
        HardwareError: torch is not installed.
    """
    tensors = _read(custom_weights)
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    rows = _float_matrix(custom_weights, tensors)
    users = UserRows(
        [ArrayRows(tensor_array(rows), f"tensor {USERS!r} of {custom_weights}")],
        ids=None if ids is None else arguments.unique_ids(ids, "ids", rows.shape[0]),
        source="the argument ids",
    )
    kept = {} if mapper == "identity" else weights
    arrays = {name: tensor_array(tensor).astype(np.float32, copy=False) for name, tensor in kept.items()}
    return OfficialParts(Mapper(mapper, arrays, str(custom_weights)), users)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Return the file's tensors under flat names, mapped from disk where the format allows."""
    content = read_torch_file(
        path,
        "the custom_weights.pt of the official FilterLLM code",
        "Save it again as torch.save({'mapper': ..., 'user_embeddings': ...}) of state dicts",
    )
    return _flatten(content, path)


def _flatten(content: object, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(content, Mapping):
        raise BundleError(f"{path} holds a {type(content).__name__}", expected=f"a dict with {PREFIX}* and {USERS}")
    flat: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        inner = value if isinstance(value, Mapping) else None
        for key, tensor in [(name, value)] if inner is None else [(f"{name}.{k}", v) for k, v in inner.items()]:
            if not isinstance(tensor, torch.Tensor):
                raise BundleError(f"{path}: {key!r} is a {type(tensor).__name__}", expected="a tensor")
            if not key.startswith((PREFIX, USERS, _TRAINING_ONLY)):
                raise BundleError(f"{path} has the unknown tensor {key!r}", expected=f"{PREFIX}* and {USERS}")
            flat[key] = tensor
    return flat


def _float_matrix(path: Path, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if USERS not in tensors:
        held = ", ".join(sorted(tensors)) or "nothing"
        raise BundleError(f"{path} lacks the tensor {USERS!r} and holds {held}", expected=f"{USERS!r} [users, dim]")
    rows = tensors[USERS]
    if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
        raise BundleError(
            f"tensor {USERS!r} of {path} has the dtype {rows.dtype} and the shape {list(rows.shape)}",
            expected="floating point [users, dim]",
        )
    return rows
