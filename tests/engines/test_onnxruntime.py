from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.table.codec_names import CODEC_NAMES

onnx = pytest.importorskip("onnx")

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((300, 24)).astype(np.float32)


@pytest.mark.parametrize("quant", CODEC_NAMES)
def test_an_answer_is_called_exact_only_where_sums_are(tmp_path: Path, quant: str) -> None:
    from fllm_export.graphs.heads import bundle_heads

    UserTable.create(tmp_path / "users", ROWS, quant=quant)
    (tmp_path / "head").mkdir()
    onnx.save(bundle_heads(quant, 24, bias=False)["tile"], tmp_path / "head" / "tile.onnx")
    table = UserTable.open(tmp_path / "users", engine="onnxruntime", head=tmp_path / "head")
    answer = table.topk(ROWS[:2], 5)
    assert answer.complete.all()
    assert answer.log_probs_exact.all()
    assert answer.exact.tolist() == [quant in ("int8", "int4row", "int2", "int1")] * 2
    judge = UserTable.open(tmp_path / "users", engine="numpy").topk(ROWS[:2], 5)
    assert judge.exact.all()
    np.testing.assert_allclose(answer.scores, judge.scores, rtol=1e-3 if quant in ("fp8", "int4") else 1e-5)


@pytest.mark.parametrize("quant", ["int8", "int2", "int1", "fp16"])
def test_deleted_rows_are_left_out(tmp_path: Path, quant: str) -> None:
    from fllm_export.graphs.heads import bundle_heads

    UserTable.create(tmp_path / "users", ROWS[:200], quant=quant)
    (tmp_path / "head").mkdir()
    onnx.save(bundle_heads(quant, 24, bias=False)["tile"], tmp_path / "head" / "tile.onnx")
    table = UserTable.open(tmp_path / "users", engine="onnxruntime", head=tmp_path / "head")
    table.append(ROWS[200:], np.arange(200, 300))
    table.update(ROWS[:50] / 2, np.arange(150, 200))
    table.delete(np.arange(0, 150, 2))
    kept = np.concatenate([np.arange(1, 150, 2), np.arange(150, 300)])
    rows = np.concatenate([ROWS[1:150:2], ROWS[:50] / 2, ROWS[200:]])
    judge = UserTable.create(tmp_path / "fresh", rows, kept, quant=quant)
    found, expected = table.topk(ROWS[:3], 225), judge.topk(ROWS[:3], 225)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    assert (found.coverage == 1).all()
    assert set(found.user_ids.ravel().tolist()) == set(kept.tolist())
    if quant != "fp16":
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)


def test_tiles_of_uneven_size_are_scored(tmp_path: Path) -> None:
    from fllm_export.graphs.heads import bundle_heads

    rows = (4 * ROWS[GENERATOR.integers(0, 9, 6_001)] + GENERATOR.standard_normal((6_001, 24)) / 3).astype(np.float32)
    UserTable.create(tmp_path / "users", rows, cluster="yes")
    assert '"tile_ends": true' in (tmp_path / "users" / "table.json").read_text()
    (tmp_path / "head").mkdir()
    onnx.save(bundle_heads("int8", 24, bias=False)["tile"], tmp_path / "head" / "tile.onnx")
    table = UserTable.open(tmp_path / "users", engine="onnxruntime", head=tmp_path / "head")
    judge = UserTable.open(tmp_path / "users", engine="numpy")
    for k in (1, 2_000):
        np.testing.assert_array_equal(table.topk(rows[:3], k).user_ids, judge.topk(rows[:3], k).user_ids)
