from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.checkpoint.mapper import Mapper
from fllm_export.errors import BundleError, UsageError


def weights(kind: str, hidden: int, dim: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"weight": (dim, hidden), "bias": (dim,)}
    if kind in ("mlp", "kernel"):
        shapes = {"0.weight": (7, hidden), "0.bias": (7,), "2.weight": (dim, 7), "2.bias": (dim,)}
    if kind == "identity":
        shapes = {}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["linear", "linear_relu", "mlp", "kernel"])
@given(hidden=st.integers(1, 6), dim=st.integers(1, 6), batch=st.integers(0, 3), seed=st.integers(0, 99))
def test_apply_is_the_formula(kind: str, hidden: int, dim: int, batch: int, seed: int) -> None:
    mapper = Mapper(kind, weights(kind, hidden, dim, seed))  # type: ignore[arg-type]
    x = np.random.default_rng(seed).standard_normal((batch, hidden)).astype(np.float32)
    w = {name: value.astype(np.float64) for name, value in mapper.weights.items()}
    if kind in ("mlp", "kernel"):
        given = x / np.linalg.norm(x, axis=1, keepdims=True) if kind == "kernel" else x
        inner = np.einsum("mh,bh->bm", w["0.weight"], given) + w["0.bias"]
        inner = np.exp(inner) if kind == "kernel" else np.maximum(0, inner)
        wanted = np.einsum("dm,bm->bd", w["2.weight"], inner) + w["2.bias"]
    else:
        wanted = np.einsum("dh,bh->bd", w["weight"], x) + w["bias"]
        wanted = np.maximum(0, wanted) if kind == "linear_relu" else wanted
    z = mapper.apply(x)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=1e-4)
    assert (mapper.hidden, mapper.dim) == (hidden, dim)
    assert mapper.inner == (7 if kind in ("mlp", "kernel") else None)


def test_identity() -> None:
    mapper = Mapper("identity")
    x = np.ones((2, 3), np.float32)
    assert mapper.apply(x) is x
    assert mapper.hidden is None
    assert mapper.dim is None


@pytest.mark.parametrize("kind", ["mlp", "kernel"])
def test_inner_widths_must_meet(kind: Any) -> None:
    wrong = weights(kind, 5, 3)
    wrong["2.weight"] = np.zeros((3, 8), np.float32)
    with pytest.raises(BundleError) as caught:
        Mapper(kind, wrong)
    assert "mapper.2.weight has the shape [3, 8]" in str(caught.value)
    assert "[any, 7]" in str(caught.value)


def test_bias_must_match_rows() -> None:
    with pytest.raises(BundleError, match=r"mapper\.bias has the shape \[4\]; expected \[3\]"):
        Mapper("linear", {"weight": np.zeros((3, 5), np.float32), "bias": np.zeros(4, np.float32)})


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="expected one of identity, linear"):
        Mapper("cubic")  # type: ignore[arg-type]


def gaussian(landmarks: np.ndarray, g: float) -> Mapper:
    """Return exp(g (l.u - 1)) of unit landmarks l [m, h] as a kernel whose last layer does nothing."""
    m = len(landmarks)
    first = {"0.weight": g * landmarks, "0.bias": np.full(m, -g)}
    return Mapper("kernel", {**first, "2.weight": np.eye(m), "2.bias": np.zeros(m)})


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@given(seed=st.integers(0, 99), scale=st.floats(1e-30, 1e30), g=st.floats(0.1, 20))
def test_a_kernel_is_the_gaussian_of_directions(seed: int, scale: float, g: float) -> None:
    """exp(g (a.b - 1)) = exp(-g/2 |a - b|^2) for unit vectors, however long the input is."""
    generator = np.random.default_rng(seed)
    landmarks, x = unit(generator.standard_normal((5, 8))), generator.standard_normal((3, 8))
    found = gaussian(landmarks, g).apply((x * scale).astype(np.float32))
    distance = np.square(unit(x)[:, None] - landmarks).sum(-1)
    np.testing.assert_allclose(found, np.exp(-g / 2 * distance), rtol=2e-6 * (1 + g))


@given(
    hidden=st.integers(1, 70),
    inner=st.integers(1, 70),
    g=st.floats(0.1, 40),
    seed=st.integers(0, 10**6),
    exponent=st.integers(-30, 30),
)
def test_float32_keeps_the_stated_distance_from_float64(
    hidden: int, inner: int, g: float, seed: int, exponent: int
) -> None:
    """The bound of docs/reference/format.md, for every component of every item."""
    generator = np.random.default_rng(seed)
    shapes = {"0.weight": (inner, hidden), "0.bias": (inner,), "2.weight": (4, inner), "2.bias": (4,)}
    made = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    made["0.weight"] = g * unit(made["0.weight"])
    made["0.bias"] = -g + generator.uniform(-3, 3, inner)
    made["2.weight"] *= 10.0 ** generator.uniform(-3, 3, inner)
    mapper = Mapper("kernel", {name: value.astype(np.float32) for name, value in made.items()})
    x = (generator.standard_normal((6, hidden)) * 10.0**exponent).astype(np.float32)
    w = {name: value.astype(np.float64) for name, value in mapper.weights.items()}
    features = np.exp(unit(x.astype(np.float64)) @ w["0.weight"].T + w["0.bias"])
    expected = features @ w["2.weight"].T + w["2.bias"]
    largest = (np.linalg.norm(w["0.weight"], axis=1) + np.abs(w["0.bias"])).max()
    sizes = features @ np.abs(w["2.weight"]).T + np.abs(w["2.bias"])
    bound = 2.0**-24 * ((1.5 * hidden + 8) * (largest + 1) + inner + 4) * sizes
    assert (np.abs(mapper.apply(x) - expected) <= bound).all()


def test_the_zero_vector_has_a_defined_image() -> None:
    mapper = Mapper("kernel", weights("kernel", 5, 3))
    z = mapper.apply(np.zeros((2, 5), np.float32))
    w = mapper.weights
    np.testing.assert_allclose(z, np.tile(w["2.weight"] @ np.exp(w["0.bias"]) + w["2.bias"], (2, 1)), rtol=1e-5)


def test_a_kernel_that_can_overflow_is_refused() -> None:
    """An exponent is at most the row's length plus its bias, and the input along the row reaches that."""
    made = weights("kernel", 5, 3)
    made["0.weight"][4] *= 80 / np.linalg.norm(made["0.weight"][4])
    made["0.bias"][4] = 7.9
    x = made["0.weight"][4:5] * 3
    assert np.isfinite(Mapper("kernel", made).apply(x)).all()
    made["0.bias"][4] = 9.5
    with pytest.raises(BundleError, match=r"exponent of row 4 of mapper\.0\.weight can be 89\.5; expected at most 88"):
        Mapper("kernel", made)
    assert Mapper("mlp", made).kind == "mlp"


@given(seed=st.integers(0, 99), narrow=st.integers(1, 4))
def test_a_matrix_folds_into_the_last_layer(seed: int, narrow: int) -> None:
    generator = np.random.default_rng(seed)
    mapper = Mapper("kernel", weights("kernel", 5, 3, seed))
    matrix, x = generator.standard_normal((narrow, 3)), generator.standard_normal((4, 5)).astype(np.float32)
    folded = mapper.then(matrix)
    assert (folded.kind, folded.dim, folded.inner) == ("kernel", narrow, 7)
    z = mapper.apply(x)
    np.testing.assert_allclose(folded.apply(x), z @ matrix.T, rtol=1e-4, atol=1e-4 * np.abs(z).max())
