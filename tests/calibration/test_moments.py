from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, UsageError
from fllm_export.calibration.moments import Moments


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    spread = np.linspace(3, 0.1, dim)
    return (generator.standard_normal((count, dim)) * spread + 0.5).astype(np.float32)


@settings(max_examples=30)
@given(count=st.integers(1, 60), dim=st.integers(1, 12), parts=st.integers(1, 7), seed=st.integers(0, 1 << 30))
def test_streamed_moments_are_those_of_all_vectors_at_once(count: int, dim: int, parts: int, seed: int) -> None:
    x = vectors(count, dim, seed)
    found = Moments.of(np.array_split(x, parts))
    wide = x.astype(np.float64)
    assert (found.count, found.dim) == (count, dim)
    np.testing.assert_allclose(found.mean, wide.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.second, wide.T @ wide / count, rtol=1e-5, atol=1e-5)
    assert found.fourth == pytest.approx((np.linalg.norm(wide, axis=1) ** 4).mean(), rel=1e-5)
    np.testing.assert_array_equal([found.lowest, found.highest], [x.min(0), x.max(0)])


@settings(max_examples=30)
@given(count=st.integers(1, 40), dim=st.integers(1, 12), seed=st.integers(0, 1 << 30))
def test_the_metric_is_positive_definite_and_keeps_the_trace(count: int, dim: int, seed: int) -> None:
    found = Moments.of([vectors(count, dim, seed)])
    assert 0 <= found.shrinkage <= 1
    assert np.linalg.eigvalsh(found.metric())[0] > 0
    assert np.trace(found.metric()) == pytest.approx(np.trace(found.second))


def test_shrinking_brings_few_vectors_nearer_to_the_truth_and_many_stay() -> None:
    dim, generator = 24, np.random.default_rng(0)
    spread = np.linspace(1, 0.2, dim)
    truth = np.diag(spread**2)

    def drawn(count: int) -> Moments:
        return Moments.of([(generator.standard_normal((count, dim)) * spread).astype(np.float32)])

    few = [drawn(dim) for _ in range(20)]
    plain, shrunk = (
        np.mean([np.linalg.norm(matrix - truth) for matrix in matrices])
        for matrices in ([found.second for found in few], [found.metric() for found in few])
    )
    assert shrunk < 0.6 * plain
    assert np.mean([found.shrinkage for found in few]) > 0.3
    assert drawn(20_000).shrinkage < 0.01


def test_vectors_of_zeros_have_a_metric() -> None:
    np.testing.assert_array_equal(Moments.of([np.zeros((3, 2), np.float32)]).metric(), np.eye(2))


def test_a_file_holds_them(tmp_path: Path) -> None:
    found = Moments.of([vectors(50, 6, 1)])
    found.save(tmp_path / "moments.safetensors")
    again = Moments.load(tmp_path / "moments.safetensors")
    assert (again.count, again.fourth) == (found.count, found.fourth)
    for name in ("mean", "lowest", "highest"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.testing.assert_allclose(again.second, found.second, rtol=1e-6)


def test_no_vector_and_damaged_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no vectors"):
        Moments.of([])
    with pytest.raises(UsageError, match="no vectors"):
        Moments.of([np.empty((0, 3), np.float32)])
    path = tmp_path / "moments.safetensors"
    with pytest.raises(BundleError, match="cannot be read"):
        Moments.load(path)
    Moments.of([vectors(5, 3, 0)]).save(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"cannot be read.*Build the bundle again"):
        Moments.load(path)
