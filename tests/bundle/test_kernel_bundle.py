"""A checkpoint with features and a kernel mapper becomes a bundle like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, Checkpoint, Runtime, build
from fllm_export.bundle.bundle import ENCODER_REPORT
from fllm_export.bundle.estimate import estimate
from fllm_export.bundle.job import Job, Options
from fllm_export.item_texts import ItemTexts
from fllm_export.link import Link
from fllm_export.progress import silent
from fllm_export.table.options import TableOptions

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    return tiny_checkpoint("bert", mapper="kernel", users=400, features=("tanh", "normalize"))


def test_item_vectors_are_the_checkpoint_s(
    kernel_bundle: Bundle, checkpoint: Checkpoint, item_texts: list[str]
) -> None:
    from fllm_export.checkpoint.adapted import load_unmerged

    expected = load_unmerged(checkpoint).item_vectors(item_texts)
    found = Runtime.open(kernel_bundle.path).encode(item_texts)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert kernel_bundle.report(ENCODER_REPORT)["onnx_against_torch"]["max_rel"] < 1e-4
    kernel_bundle.verify()


def test_the_model_card_tells_features_and_mapper(kernel_bundle: Bundle) -> None:
    card = (kernel_bundle.path / "README.md").read_text()
    for row in ("| pooling | mean |", "| features | dense tanh, then normalize |", "| mapper | kernel |"):
        assert row in card


def test_the_link_is_the_checkpoint_s(checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path) -> None:
    power = replace(checkpoint, spec=replace(checkpoint.spec, link=Link(2)))
    assert power.fingerprint() != checkpoint.fingerprint()
    bundle = build(power, tmp_path / "bundle", calibration=item_texts, min_recall=0.9)
    runtime = Runtime.open(bundle.path)
    answer = runtime.topk(item_texts[:3], k=400)
    weights = 1 + np.maximum(answer.scores.astype(np.float64), 0) ** 2
    np.testing.assert_allclose(np.exp(answer.log_probs), weights / weights.sum(1, keepdims=True), rtol=1e-4)
    assert bundle.parity().logsumexp_error_max < 0.05
    assert runtime.users.link == Link(2)
    # The exponential's log-normaliser of the same scores is another one.
    assert np.abs(np.log(np.exp(answer.scores).sum(1)) - answer.logsumexp).min() > 0.05


def test_the_estimate_counts_every_weight(
    kernel_bundle: Bundle, checkpoint: Checkpoint, item_texts: list[str], tmp_path: Path
) -> None:
    options = Options(TableOptions(), min_recall=0.9, k=20, exporter="torch", threads=1)
    job = Job(checkpoint, ItemTexts.of(item_texts, "calibration"), options, silent)
    predicted = estimate(job, tmp_path).files["encoder/model.onnx"]
    weights = [*checkpoint.features.tensors.values(), *checkpoint.mapper.weights.values()]
    assert sum(value.size for value in weights) == 20 * 33 + 24 * 21 + 16 * 25
    base = sum(np.prod(tensor.shape, dtype=int) for tensor in checkpoint.base_model.tensors().values())
    assert predicted.value == 4 * (base + sum(value.size for value in weights))
    written = (Path(kernel_bundle.path) / "encoder" / "model.onnx").stat().st_size
    assert abs(predicted.value - written) < 0.3 * written
