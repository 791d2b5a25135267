from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.checkpoint.mapper import Mapper
from fllm_export.errors import BundleError, UsageError


def weights(kind: str, hidden: int, dim: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"weight": (dim, hidden), "bias": (dim,)}
    if kind == "mlp":
        shapes = {"0.weight": (7, hidden), "0.bias": (7,), "2.weight": (dim, 7), "2.bias": (dim,)}
    if kind == "identity":
        shapes = {}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["linear", "linear_relu", "mlp"])
@given(hidden=st.integers(1, 6), dim=st.integers(1, 6), batch=st.integers(0, 3), seed=st.integers(0, 99))
def test_apply_is_the_formula(kind: str, hidden: int, dim: int, batch: int, seed: int) -> None:
    mapper = Mapper(kind, weights(kind, hidden, dim, seed))  # type: ignore[arg-type]
    x = np.random.default_rng(seed).standard_normal((batch, hidden)).astype(np.float32)
    w = {name: value.astype(np.float64) for name, value in mapper.weights.items()}
    if kind == "mlp":
        inner = np.maximum(0, np.einsum("mh,bh->bm", w["0.weight"], x) + w["0.bias"])
        wanted = np.einsum("dm,bm->bd", w["2.weight"], inner) + w["2.bias"]
    else:
        wanted = np.einsum("dh,bh->bd", w["weight"], x) + w["bias"]
        wanted = np.maximum(0, wanted) if kind == "linear_relu" else wanted
    z = mapper.apply(x)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=1e-4)
    assert (mapper.hidden, mapper.dim) == (hidden, dim)


def test_identity() -> None:
    mapper = Mapper("identity")
    x = np.ones((2, 3), np.float32)
    assert mapper.apply(x) is x
    assert mapper.hidden is None
    assert mapper.dim is None


@pytest.mark.parametrize("kind", ["linear", "linear_relu", "mlp"])
def test_file_round_trip(kind: str, tmp_path: Path) -> None:
    mapper = Mapper(kind, weights(kind, 5, 3))  # type: ignore[arg-type]
    mapper.write(tmp_path / "head.safetensors")
    back = Mapper.read(tmp_path / "head.safetensors", kind)  # type: ignore[arg-type]
    assert set(back.weights) == set(mapper.weights)
    for name, value in mapper.weights.items():
        np.testing.assert_array_equal(back.weights[name], value)


def test_half_precision_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"mapper.weight": torch.randn(3, 5).bfloat16(), "mapper.bias": torch.randn(3).half()}
    save_file(tensors, tmp_path / "head.safetensors")
    mapper = Mapper.read(tmp_path / "head.safetensors", "linear")
    np.testing.assert_array_equal(mapper.weights["weight"], tensors["mapper.weight"].float().numpy())
    assert {value.dtype for value in mapper.weights.values()} == {np.dtype(np.float32)}


def test_inner_widths_of_the_mlp_must_meet() -> None:
    wrong = weights("mlp", 5, 3)
    wrong["2.weight"] = np.zeros((3, 8), np.float32)
    with pytest.raises(BundleError) as caught:
        Mapper("mlp", wrong)
    assert "mapper.2.weight has the shape [3, 8]" in str(caught.value)
    assert "[any, 7]" in str(caught.value)


def test_bias_must_match_rows() -> None:
    with pytest.raises(BundleError, match=r"mapper\.bias has the shape \[4\]; expected \[3\]"):
        Mapper("linear", {"weight": np.zeros((3, 5), np.float32), "bias": np.zeros(4, np.float32)})


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="expected one of identity, linear"):
        Mapper("cubic")  # type: ignore[arg-type]
