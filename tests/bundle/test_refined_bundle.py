"""Bundles whose table has refinement rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Runtime, UsageError, build
from fllm_export.bundle.bundle import Bundle
from fllm_export.checkpoint.checkpoint import Checkpoint

from .test_calibration import TEXTS


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    return tiny_checkpoint("bert", users=300)


@pytest.fixture(scope="module")
def built(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("refined") / "bundle"
    return build(checkpoint, out, calibration=TEXTS, quant="int8", refine="fp16", dim=6, k=20, min_recall=0.5)


def test_one_item_vector_serves_both_kinds_of_rows(checkpoint: Checkpoint, built: Bundle) -> None:
    layout = built.table().layout
    assert (layout.dim, layout.item_dim, built.manifest.dim) == (6, 16, 16)
    assert (built.path / "users" / "refine-00000.safetensors").is_file()
    built.verify()
    runtime = Runtime.open(built.path)
    plain, refined = (runtime.topk(TEXTS[:40], 20, refine=c) for c in (0, 300))
    from fllm_export.checkpoint.adapted import load_unmerged

    model = load_unmerged(checkpoint)
    scores = model.item_vectors(TEXTS[:40]) @ np.concatenate([rows for _, rows, _ in model.users.labelled_chunks()]).T
    truth = np.argsort(-scores, axis=1)[:, :20]
    found = [
        np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(truth, answer.user_ids, strict=True)])
        for answer in (plain, refined)
    ]
    assert found[1] > 0.97 > found[0]
    np.testing.assert_allclose(refined.scores, -np.sort(-scores, axis=1)[:, :20], atol=2e-3 * np.abs(scores).max())


def test_parity_is_that_of_refined_answers_and_the_card_names_the_rows(built: Bundle) -> None:
    assert built.parity().recall[20] > 0.75
    assert "fp16, 16 dimensions" in (built.path / "README.md").read_text()
    assert "fp16, 16 dimensions" in (built.path / "reports" / "report.html").read_text()
    assert built.calibration()["dim"]["chosen"] == 6


def test_onnxruntime_and_numpy_give_the_same_answers(built: Bundle) -> None:
    expected = Runtime.open(built.path).topk(TEXTS[:6], 10)
    for engine in ("numpy", "onnxruntime"):
        found = Runtime.open(built.path, engine=engine).topk(TEXTS[:6], 10)
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_rows_of_all_dimensions_are_refined_too(checkpoint: Checkpoint, tmp_path: Path) -> None:
    found = build(checkpoint, tmp_path / "b", calibration=TEXTS, quant="int2", refine="int8", k=20, min_recall=0.5)
    assert (found.table().layout.dim, found.table().layout.item_dim) == (16, 16)
    plain = build(checkpoint, tmp_path / "p", calibration=TEXTS, quant="int2", k=20, min_recall=0.1)
    assert found.parity().recall[20] > 0.98 > 0.95 > plain.parity().recall[20]


def test_plans_are_refused(built: Bundle) -> None:
    from fllm_export.plans.build import add_plans
    from fllm_export.plans.options import PlanOptions

    with pytest.raises(UsageError, match="has refinement rows, which the engine `tensorrt` does not read"):
        add_plans(built.path, PlanOptions())
