"""The bars of training on real data and real encoders: minutes each."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("pyarrow")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import merge  # noqa: E402
from fllm_export.evaluation.dataset import Dataset  # noqa: E402
from fllm_export.evaluation.evaluation import evaluate  # noqa: E402
from fllm_export.evaluation.metrics import Ranking  # noqa: E402
from fllm_export.evaluation.ranker import open_ranker  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe, SoftmaxRecipe  # noqa: E402
from fllm_export.training.trainer import train  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("recipe", "precision", "recall"),
    # The closed form is to be above text kNN, which needs no training: .1783 and .3318.
    [(ClosedFormRecipe(), 0.18, 0.34), (SoftmaxRecipe(), 0.15, 0.30)],
    ids=["closed form", "softmax"],
)
@pytest.mark.usefixtures("minilm_dir")
def test_citeulike_with_minilm_finds_the_users_of_cold_items(shared_data, tmp_path, recipe, precision, recall):
    data = Dataset.load(shared_data / "citeulike-a")
    report = train(data, tmp_path / "checkpoint", recipe)
    assert report.kept_epoch > 0
    found = evaluate(open_ranker(tmp_path / "checkpoint"), data, "cold_test", baselines=False).users_of_items
    assert found.lists == 1698
    assert found.precision >= precision
    assert found.recall >= recall


@pytest.mark.usefixtures("smollm2_gguf")
def test_smollm2_takes_a_few_steps_and_its_adapter_folds(shared_data, tmp_path):
    data = Dataset.load(shared_data / "citeulike-a")
    recipe = SoftmaxRecipe(max_steps=2, batch=8, vocabulary_epochs=1)
    report = train(data, tmp_path / "checkpoint", recipe, encoder="smollm2")
    assert (report.items, report.kept_epoch) == (16, 1)
    checkpoint = Checkpoint.load(tmp_path / "checkpoint")
    assert checkpoint.spec.pooling == "last"
    folded = merge(checkpoint, data.texts[:3]).report
    assert folded.lora_layers == 60
    assert folded.max_relative_error < 1e-4


@pytest.mark.usefixtures("minilm_dir")
def test_movielens_from_recboles_package(tmp_path):
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("the package recbole is not installed")
    script = Path(__file__).parents[2] / "examples" / "movielens_100k.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "data")], check=True, cwd=script.parents[1])
    data = Dataset.load(tmp_path / "data")
    assert (len(data.user_ids), len(data.item_ids)) == (943, 1682)
    train(data, tmp_path / "checkpoint")
    found = evaluate(open_ranker(tmp_path / "checkpoint"), data, "cold_test", baselines=False).users_of_items
    cold = data.splits["cold_test"]
    active = np.argsort(-np.bincount(data.splits["train"].users), kind="stable")[:20]
    everywhere = Ranking.of(np.tile(active, (found.lists, 1)), cold.users_of(cold.distinct_items))
    # Few films are for few: the 20 most active users for every film are a strong answer here.
    assert found.precision > everywhere.precision
    assert found.recall > everywhere.recall
