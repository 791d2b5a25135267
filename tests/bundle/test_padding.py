"""What shares a batch with a text changes nothing in its answer, on whichever side the batch is padded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from fllm_export import Checkpoint, Runtime, build
from fllm_export.bundle.bundle import ENCODER_REPORT

from ..conftest import TinyCheckpoint


def test_a_longer_text_in_the_batch_changes_no_answer(
    tiny_checkpoint: TinyCheckpoint, item_texts: list[str], tmp_path: Path
) -> None:
    """A BERT with its mean pooled and padding on the left, whose own positions would count the padding."""
    made = tiny_checkpoint("bert", users=300)
    spec = replace(made.spec, padding_side="left")
    checkpoint = Checkpoint(spec, made.base, made.adapter, made.mapper, made.users)
    bundle = build(checkpoint, tmp_path / "bundle", calibration=item_texts, min_recall=0.9)
    by_padding = bundle.report(ENCODER_REPORT)["onnx_against_torch"]["max_rel_by_padding"]
    assert set(by_padding) == {"alone", "left", "right"}
    assert max(by_padding.values()) < 1e-4
    runtime = Runtime.open(bundle.path)
    alone = runtime.topk(["films"], k=20)
    together = runtime.topk(["films", "a paper on graphs " * 12], k=20)
    np.testing.assert_array_equal(together.user_ids[0], alone.user_ids[0])
    np.testing.assert_allclose(together.log_probs[0], alone.log_probs[0], atol=1e-4)
