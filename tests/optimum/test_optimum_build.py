from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Checkpoint, Runtime, build

pytest.importorskip("optimum.exporters.onnx", reason="needs the environment of constraints/optimum.txt")


@pytest.mark.parametrize(
    "choice",
    [
        {"family": "bert"},
        {"family": "llama"},
        {"family": "bert", "mapper": "kernel", "features": ("tanh", "normalize")},
    ],
    ids=lambda choice: "-".join(map(str, choice.values())),
)
def test_a_bundle_built_through_optimum_answers(
    choice: dict[str, Any], tiny_checkpoint: Callable[..., Checkpoint], tmp_path: Path, item_texts: list[str]
) -> None:
    checkpoint = tiny_checkpoint(**choice, users=400)
    bundle = build(checkpoint, tmp_path / "b", calibration=item_texts, exporter="optimum", min_recall=0.9)
    assert bundle.manifest.provenance["exporter"] == "optimum"
    assert "optimum-onnx" in bundle.manifest.provenance["versions"]
    bundle.verify()
    answers = [Runtime.open(bundle.path, engine=name).topk(item_texts, 20) for name in ("onnxruntime", "numpy")]
    np.testing.assert_array_equal(answers[0].user_ids, answers[1].user_ids)
