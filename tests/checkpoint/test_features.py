"""Features: the formulas, in NumPy and torch, against float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.checkpoint.feature_spec import ACTIVATIONS, FeatureSpec
from fllm_export.checkpoint.features import Dense, Features, Normalize, Step, unit_vectors
from fllm_export.errors import BundleError, UsageError

F64 = npt.NDArray[np.float64]

WIDE: dict[str, Callable[[F64], F64]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.where(x > 0, x, 0),
    "gelu": np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2, otypes=[np.float64]),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def random_features(hidden: int, kinds: list[str], seed: int) -> Features:
    """Return a step for each kind: ``normalize``, or the activation of a dense step."""
    generator = np.random.default_rng(seed)
    steps: list[Step] = []
    for kind in kinds:
        if kind == "normalize":
            steps.append(Normalize())
            continue
        width = int(generator.integers(1, 9))
        weight, bias = generator.standard_normal((width, hidden)), generator.standard_normal(width)
        steps.append(Dense(weight, bias, kind))  # type: ignore[arg-type]
        hidden = width
    return Features(tuple(steps))


def in_float64(features: Features, x: F64) -> F64:
    for step in features.steps:
        if isinstance(step, Normalize):
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
        else:
            x = WIDE[step.activation](x @ step.weight.T.astype(np.float64) + step.bias)
    return x


kinds = st.lists(st.sampled_from(["normalize", *ACTIVATIONS]), max_size=4)


@given(hidden=st.integers(1, 8), kinds=kinds, batch=st.integers(0, 3), seed=st.integers(0, 999))
def test_numpy_and_torch_compute_the_formulas(hidden: int, kinds: list[str], batch: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    from fllm_export.checkpoint.feature_layers import feature_layers

    features = random_features(hidden, kinds, seed)
    x = np.random.default_rng(seed).standard_normal((batch, hidden)).astype(np.float32)
    layers = feature_layers(features)
    assert {name: tuple(value.shape) for name, value in layers.state_dict().items()} == {
        name: value.shape for name, value in features.tensors.items()
    }
    with torch.inference_mode():
        in_torch = layers(torch.from_numpy(x)).numpy()
    expected = in_float64(features, x.astype(np.float64))
    assert features.width(hidden) == expected.shape[1]
    # A vector that a relu or a difference made nearly zero has no direction that float32 knows.
    known = np.ones(batch, bool)
    for i, kind in enumerate(kinds):
        if kind == "normalize":
            before = in_float64(Features(features.steps[:i]), x.astype(np.float64))
            known &= np.linalg.norm(before, axis=1) > 1e-2
    for found in (features.apply(x), in_torch):
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-3, atol=1e-3)


@given(
    x=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40),
    scale=st.sampled_from([1e-37, 1e-20, 1.0, 1e20, 3e38]),
)
def test_unit_vectors_of_every_magnitude(x: list[float], scale: float) -> None:
    """Squares of such numbers overflow or vanish in float32; lengths do not."""
    torch = pytest.importorskip("torch")
    from fllm_export.checkpoint.feature_layers import unit_vectors as in_torch

    vector = (np.array([x]) * scale).astype(np.float32)
    length = np.linalg.norm(vector.astype(np.float64))
    found = unit_vectors(vector)
    assert np.isfinite(found).all()
    if np.abs(vector).max() >= 2e-38:
        np.testing.assert_allclose(found, vector / length, rtol=0, atol=3e-7)
    np.testing.assert_allclose(in_torch(torch.from_numpy(vector)).numpy(), found, rtol=0, atol=3e-7)


def test_the_zero_vector_stays_zero() -> None:
    torch = pytest.importorskip("torch")
    from fllm_export.checkpoint.feature_layers import unit_vectors as in_torch

    zero = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(unit_vectors(zero), zero)
    np.testing.assert_array_equal(in_torch(torch.zeros(2, 4)).numpy(), zero)


def test_gradients_are_those_of_the_formula() -> None:
    torch = pytest.importorskip("torch")
    from fllm_export.checkpoint.feature_layers import unit_vectors as in_torch

    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(in_torch, (x,))


@pytest.mark.parametrize("x", [-200.0, -9.0, 0.0, 9.0, 200.0])
def test_activations_far_from_zero(x: float) -> None:
    for activation in ACTIVATIONS:
        dense = Dense(np.ones((1, 1)), np.zeros(1), activation)
        with np.errstate(over="raise", invalid="raise"):
            found = dense.apply(np.array([[x]], np.float32))
        np.testing.assert_allclose(found, WIDE[activation](np.array([[x]])), rtol=1e-6, atol=1e-15)


def test_none_is_the_usual_case() -> None:
    x = np.ones((2, 3), np.float32)
    assert not Features()
    assert Features().apply(x) is x
    assert (Features().width(3), Features().width(None), Features().specs) == (3, None, ())


def test_what_the_spec_says() -> None:
    features = random_features(8, ["normalize", "tanh", "identity"], 0)
    assert features.specs == (
        FeatureSpec("normalize"),
        FeatureSpec("dense", "tanh"),
        FeatureSpec("dense", "identity"),
    )
    assert [str(spec) for spec in features.specs] == ["normalize", "dense tanh", "dense"]
    assert list(features.tensors) == ["1.weight", "1.bias", "2.weight", "2.bias"]


def dense(out: int, taken: int, **changes: Any) -> Dense:
    return Dense(**{"weight": np.ones((out, taken)), "bias": np.ones(out), **changes})


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BundleError, match=r"features\.2\.weight has the shape \[2, 5\]; expected \[any, 4\]"):
        Features((dense(4, 8), Normalize(), dense(2, 5)))
    with pytest.raises(BundleError, match=r"features\.0\.weight has the shape \[4, 8\]; expected \[any, 9\]"):
        Features((dense(4, 8),)).width(9)
    with pytest.raises(BundleError, match=r"weight has the shape \[3\]; expected \[out, in\]"):
        dense(1, 1, weight=np.ones(3))
    with pytest.raises(BundleError, match=r"bias has the shape \[3\]; expected \[4\]"):
        dense(4, 8, bias=np.ones(3))
    with pytest.raises(BundleError, match="bias has a NaN or infinite number"):
        dense(2, 2, bias=np.array([1, np.nan]))
    with pytest.raises(UsageError, match="activation is 'selu'; expected one of identity, tanh"):
        dense(2, 2, activation="selu")
