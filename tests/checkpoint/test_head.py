"""``head.safetensors``: what is written is read, and what does not belong together is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export.checkpoint.features import Dense, Features, Normalize
from fllm_export.checkpoint.head import read_head, write_head
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.spec import CheckpointSpec

from .test_mapper import weights

SPEC = CheckpointSpec("base", "{text}", "mean", 16, "right", "identity", 3, 9)
FILE = "head.safetensors"


def some_features(hidden: int) -> Features:
    generator = np.random.default_rng(4)
    dense = Dense(generator.standard_normal((5, hidden)), generator.standard_normal(5), "tanh")
    return Features((Normalize(), dense, Normalize()))


@pytest.mark.parametrize("features", [Features(), some_features(8)], ids=["plain", "features"])
@pytest.mark.parametrize("kind", ["identity", "linear", "linear_relu", "mlp", "kernel"])
def test_round_trip(kind: Any, features: Features, tmp_path: Path) -> None:
    mapper = Mapper(kind, weights(kind, 5, 3))
    write_head(tmp_path / FILE, features, mapper)
    assert (tmp_path / FILE).exists() is (kind != "identity" or bool(features))
    steps, back = read_head(tmp_path / FILE, replace(SPEC, mapper=kind, features=features.specs))
    assert (steps.specs, back.kind) == (features.specs, kind)
    for found, wanted in ((back.weights, mapper.weights), (steps.tensors, features.tensors)):
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


def test_steps_without_weights_need_no_file(tmp_path: Path) -> None:
    features = Features((Normalize(),))
    write_head(tmp_path / FILE, features, Mapper("identity"))
    assert not list(tmp_path.iterdir())
    steps, _ = read_head(tmp_path / FILE, replace(SPEC, features=features.specs))
    assert steps.specs == features.specs


def test_half_precision_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"mapper.weight": torch.randn(3, 5).bfloat16(), "mapper.bias": torch.randn(3).half()}
    save_file(tensors, tmp_path / FILE)
    _, mapper = read_head(tmp_path / FILE, replace(SPEC, mapper="linear"))
    np.testing.assert_array_equal(mapper.weights["weight"], tensors["mapper.weight"].float().numpy())
    assert {value.dtype for value in mapper.weights.values()} == {np.dtype(np.float32)}
