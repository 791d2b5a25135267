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
    assert answer.exact.tolist() == [quant in ("int8", "int4row", "int2")] * 2
    judge = UserTable.open(tmp_path / "users", engine="numpy").topk(ROWS[:2], 5)
    assert judge.exact.all()
    np.testing.assert_allclose(answer.scores, judge.scores, rtol=1e-3 if quant in ("fp8", "int4") else 1e-5)
