"""``head.safetensors``: the weights between the encoder's pooled state and the item vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from fllm_export.checkpoint.features import Features, tensor_names
from fllm_export.checkpoint.mapper import PREFIX as MAPPER_PREFIX
from fllm_export.checkpoint.mapper import Mapper, check_names
from fllm_export.checkpoint.spec import SPEC_FILE, CheckpointSpec
from fllm_export.checkpoint.tensors import StoredTensor, open_tensors
from fllm_export.errors import BundleError
from fllm_export.files import publish

HEAD_FILE = "head.safetensors"
FEATURES_PREFIX = "features."


def read_head(path: Path, spec: CheckpointSpec) -> tuple[Features, Mapper]:
    """Read features and mapper as ``spec`` declares them; any of bf16, fp16, fp32, fp64.

    Args:
        path: the file ``head.safetensors``; there is none when the spec declares nothing that has weights.
        spec: the declared facts.

    Raises:
        BundleError: the file is missing, damaged or left over, or its tensors are not those of the spec.
    """
    names = tensor_names(spec.features)
    if spec.mapper == "identity" and not names:
        if path.exists():
            raise BundleError(
                f"{path} exists and the mapper kind is identity",
                expected="no mapper file",
                fix=f"Delete it, or declare its kind in {SPEC_FILE}",
            )
        return Features.of(spec.features, {}, str(path)), Mapper("identity")
    stored = open_tensors(path)
    foreign = sorted(name for name in stored if not name.startswith((MAPPER_PREFIX, FEATURES_PREFIX)))
    if foreign:
        raise BundleError(
            f"{path} has the unknown tensor {foreign[0]!r}",
            expected=f"tensors whose names begin with {MAPPER_PREFIX} or {FEATURES_PREFIX}",
        )
    mapper, features = _part(stored, MAPPER_PREFIX), _part(stored, FEATURES_PREFIX)
    check_names(spec.mapper, mapper, str(path))
    _check_features(set(features), names, path)
    for name, tensor in [*mapper.items(), *features.items()]:
        tensor.expect((None, None) if name.endswith("weight") else (None,))
    return (
        Features.of(spec.features, {name: features[name].read() for name in names}, str(path)),
        Mapper(spec.mapper, {name: tensor.read() for name, tensor in mapper.items()}, str(path)),
    )


def write_head(path: Path, features: Features, mapper: Mapper) -> None:
    """Write the weights as ``head.safetensors``, float32; no file when there are none."""
    parts = ((FEATURES_PREFIX, features.tensors), (MAPPER_PREFIX, mapper.weights))
    tensors = {prefix + name: np.ascontiguousarray(value) for prefix, part in parts for name, value in part.items()}
    if tensors:
        with publish(path) as file:
            file.write(save(tensors))


def _part(stored: Mapping[str, StoredTensor], prefix: str) -> dict[str, StoredTensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}


def _check_features(found: set[str], wanted: list[str], path: Path) -> None:
    expected = ", ".join(FEATURES_PREFIX + name for name in wanted) or "no tensor of features"
    expected += f", as {SPEC_FILE} declares"
    fix = f"Correct the file, or the features in {SPEC_FILE}"
    missing = [name for name in wanted if name not in found]
    if missing:
        held = ", ".join(FEATURES_PREFIX + name for name in sorted(found)) or "no tensor of features"
        words = f"{path} lacks the tensor '{FEATURES_PREFIX}{missing[0]}' and holds {held}"
        raise BundleError(words, expected=expected, fix=fix)
    unknown = sorted(found - set(wanted))
    if unknown:
        raise BundleError(f"{path} has the tensor '{FEATURES_PREFIX}{unknown[0]}'", expected=expected, fix=fix)
