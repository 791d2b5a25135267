from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import Checkpoint, UsageError, UserTable
from fllm_export.calibration.transform import Transform
from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.spec import MapperKind

KINDS: tuple[MapperKind, ...] = ("identity", "linear", "linear_relu", "mlp", "kernel")


def mapper(kind: MapperKind, hidden: int, dim: int, generator: np.random.Generator) -> Mapper:
    shapes: dict[MapperKind, dict[str, tuple[int, ...]]] = {
        "identity": {},
        "linear": {"weight": (dim, hidden), "bias": (dim,)},
        "linear_relu": {"weight": (dim, hidden), "bias": (dim,)},
        "mlp": {"0.weight": (9, hidden), "0.bias": (9,), "2.weight": (dim, 9), "2.bias": (dim,)},
        "kernel": {"0.weight": (9, hidden), "0.bias": (9,), "2.weight": (dim, 9), "2.bias": (dim,)},
    }
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes[kind].items()}
    return Mapper(kind, weights)


def rotation(dim: int, generator: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(generator.standard_normal((dim, dim)))[0]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(dim=st.integers(1, 24), seed=st.integers(0, 1 << 30), steps=st.integers(1, 3))
def test_scores_do_not_change_under_rotations(kind: MapperKind, dim: int, seed: int, steps: int) -> None:
    generator = np.random.default_rng(seed)
    hidden = dim if kind == "identity" else 7
    plain = mapper(kind, hidden, dim, generator)
    turn = Transform(*(rotation(dim, generator),) * 2)
    for _ in range(steps - 1):
        turn = turn.then(Transform(*(rotation(dim, generator),) * 2))
    x = generator.standard_normal((5, hidden)).astype(np.float32)
    rows = generator.standard_normal((11, dim)).astype(np.float32)
    folded = plain.then(turn.items).apply(x)
    scores = plain.apply(x) @ rows.T
    scale = float(np.abs(plain.apply(x)).max() * np.abs(rows).max() * dim) + 1e-30
    np.testing.assert_allclose(folded @ turn.rows(rows).T, scores, atol=1e-5 * scale)
    np.testing.assert_allclose(turn.item_vectors(plain.apply(x)), folded, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_a_low_rank_has_its_dimension_everywhere(kind: MapperKind, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    basis = rotation(16, generator)[:6]
    plain = mapper(kind, 16, 16, generator)
    low = Transform(basis, basis)
    folded = plain.then(low.items)
    rows = generator.standard_normal((40, 16)).astype(np.float32)
    assert (low.dim, folded.dim, low.rows(rows).shape) == (6, 6, (40, 6))
    z = folded.apply(generator.standard_normal((2, 16)).astype(np.float32))
    table = UserTable.create(tmp_path / "t", low.rows(rows), quant="fp32")
    assert table.dim == 6
    expected = np.sort(z.astype(np.float64) @ basis @ rows.T.astype(np.float64), 1)[:, ::-1]
    np.testing.assert_allclose(table.topk(z, 5).scores, expected[:, :5], rtol=1e-4, atol=1e-4)


def test_a_merged_model_takes_a_transform(tiny_checkpoint: Callable[..., Checkpoint]) -> None:
    from fllm_export.checkpoint.adapted import encode
    from fllm_export.checkpoint.merge import merge

    checkpoint = tiny_checkpoint("llama", users=20)
    merged = merge(checkpoint, ["jazz"])
    basis = rotation(checkpoint.spec.dim, np.random.default_rng(2))[:4]
    prompt = checkpoint.prompt()
    ids = prompt.tokenize(checkpoint.tokenizer(), ["jazz", "graphs about genes"])
    plain, low = (encode(model.encoder, prompt, ids) for model in (merged, merged.then(basis)))
    np.testing.assert_allclose(low, plain @ basis.T, rtol=1e-4, atol=1e-5)
    assert merged.then(basis).then(np.eye(4)[:2]).encoder(*map(_torch, prompt.batch(ids))).shape == (2, 2)


def _torch(array: np.ndarray) -> object:
    import torch

    return torch.from_numpy(array)


def test_matrices_that_do_not_match_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shapes \[2, 3\] and \[3, 3\]"):
        Transform(np.ones((2, 3)), np.eye(3))
    with pytest.raises(UsageError, match="not finite"):
        Transform(np.full((1, 2), np.nan), np.ones((1, 2)))
    with pytest.raises(UsageError, match="to 2 dimensions is followed by one from 3"):
        Transform(np.ones((2, 3)), np.ones((2, 3))).then(Transform(np.eye(3), np.eye(3)))
    with pytest.raises(UsageError, match=r"the matrix has the shape \[2, 3\]; expected \[m, 4\]"):
        Mapper("linear", {"weight": np.ones((4, 5), np.float32), "bias": np.ones(4, np.float32)}).then(np.ones((2, 3)))


@pytest.mark.parametrize("rows", [0, 1, 1023, 1024, 1025, 2600])
def test_rows_are_the_rounded_product_however_many_there_are(rows: int) -> None:
    generator = np.random.default_rng(rows)
    map_ = Transform(generator.standard_normal((5, 9)), generator.standard_normal((5, 9)))
    given_rows = generator.standard_normal((rows, 9)).astype(np.float32)
    for found, matrix in ((map_.rows(given_rows), map_.users), (map_.item_vectors(given_rows), map_.items)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, given_rows.astype(np.float64) @ matrix.T, rtol=1e-6, atol=1e-6)
