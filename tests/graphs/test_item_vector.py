"""Features and mappers as ONNX nodes: ONNX Runtime, torch and NumPy compute one function."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fllm_export.checkpoint.adapted import torch_mapper
from fllm_export.checkpoint.feature_layers import feature_layers
from fllm_export.checkpoint.feature_spec import ACTIVATIONS
from fllm_export.checkpoint.features import Features
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.model import ItemEncoder
from fllm_export.errors import UsageError
from fllm_export.graphs.builder import GraphBuilder
from fllm_export.graphs.item_vector import featured, mapped
from tests.conftest import small_features

F32 = npt.NDArray[np.float32]

KINDS = ("identity", "linear", "linear_relu", "mlp", "kernel")


def random_mapper(kind: Any, hidden: int, generator: np.random.Generator) -> Mapper:
    shapes: dict[str, tuple[int, ...]] = {"weight": (6, hidden), "bias": (6,)}
    if kind in ("mlp", "kernel"):
        shapes = {"0.weight": (9, hidden), "0.bias": (9,), "2.weight": (6, 9), "2.bias": (6,)}
    if kind == "identity":
        shapes = {}
    return Mapper(kind, {name: generator.standard_normal(shape) for name, shape in shapes.items()})


def in_onnx(encoder: ItemEncoder, x: F32) -> F32:
    graph = GraphBuilder("tail")
    states = graph.input("states", np.float32, ["batch", x.shape[1]])
    graph.output("z", mapped(graph, featured(graph, states, encoder), encoder), np.float32, ["batch", "width"])
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    found: F32 = session.run(["z"], {"states": x})[0]
    return found


def three_ways(features: Features, mapper: Mapper, x: F32) -> list[F32]:
    """Return z by NumPy, torch and ONNX Runtime."""
    encoder = ItemEncoder(nn.Module(), "mean", torch_mapper(mapper), feature_layers(features)).eval()
    with torch.inference_mode():
        in_torch: F32 = encoder.mapped(encoder.features(torch.from_numpy(x))).numpy()
    return [mapper.apply(features.apply(x)), in_torch, in_onnx(encoder, x)]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    steps=st.lists(st.sampled_from(["normalize", *ACTIVATIONS]), max_size=3),
    batch=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_numpy_torch_and_onnxruntime_agree(kind: str, steps: list[str], batch: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = small_features(12, steps, generator)
    mapper = random_mapper(kind, features.width(12) or 0, generator)
    first, *others = three_ways(features, mapper, generator.standard_normal((batch, 12)).astype(np.float32))
    assert np.isfinite(first).all()
    for other in others:
        np.testing.assert_allclose(other, first, rtol=2e-4, atol=2e-5 * np.abs(first).max(initial=0))


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e-12, 1.0, 1e20, 1e38])
def test_every_magnitude_has_the_same_direction(magnitude: float) -> None:
    """A kernel sees directions; the zero vector, which has none, has a defined image all the same."""
    generator = np.random.default_rng(3)
    mapper = random_mapper("kernel", 12, generator)
    x = generator.uniform(-1, 1, (2, 12))
    expected = mapper.apply((x if magnitude else x * 0).astype(np.float32))
    for found in three_ways(small_features(12, ["normalize"], generator), mapper, (x * magnitude).astype(np.float32)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_not_a_number_is_not_hidden() -> None:
    """x / |x| of infinite numbers is no direction: parity must see it."""
    mapper = random_mapper("kernel", 12, np.random.default_rng(3))
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((1, 12), np.float32)
        x[0, 4] = bad
        with np.errstate(invalid="ignore"):
            for found in three_ways(Features(), mapper, x):
                assert np.isnan(found).all()


def test_other_modules_are_refused() -> None:
    encoder = ItemEncoder(nn.Module(), "mean", nn.Tanh())
    with pytest.raises(UsageError, match="the mapper holds a Tanh; expected identity, linear, linear_relu, mlp or ker"):
        mapped(GraphBuilder("tail"), "x", encoder)
