"""benchmarks/ablation.py: what it does not do twice, and what its tables say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from benchmarks import ablation
from fllm_export.evaluation.likelihood import Likelihood
from fllm_export.training.recipe import ClosedFormRecipe

DATA: Any = SimpleNamespace(sha256="0" * 64)
USERS = {"ndcg": 0.3, "precision": 0.1, "recall": 0.2, "items": 9}
MEASURED = {
    "users_of_items": USERS,
    "items_of_users": {"A": {"recall": 0.4, "ndcg": 0.5}, "B": {"recall": 0.6, "ndcg": 0.7}},
    "likelihood": Likelihood(per_pair=5.0, uniform=6.0, calibration_error=0.01, bins=()).to_json(),
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace training and evaluation by what they write and return; the seeds that were trained."""
    seeds: list[int] = []

    def train(dataset: Any, out: Path, recipe: ClosedFormRecipe, **_: Any) -> None:
        assert not out.exists()
        out.mkdir(parents=True)
        seeds.append(recipe.seed)
        report = {"dataset_sha256": dataset.sha256, "recipe": recipe.to_json(), "kept_epoch": 0}
        (out / "training.json").write_text(json.dumps({**report, "findings": {}, "epochs": [], "seconds": {}}))

    measured = SimpleNamespace(models=[SimpleNamespace(to_json=lambda: MEASURED)])
    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "evaluate", lambda *_, **__: measured)
    return seeds


def run(work: Path, seed: int = 42, *, keep: bool = False, **changed: Any) -> None:
    recipe = ClosedFormRecipe(seed=seed, **changed)
    ablation.run_once(DATA, work / "set" / str(seed), recipe, "minilm", work / "results.jsonl", keep=keep)


def test_a_seed_with_a_record_is_not_trained_again(trained: list[int], tmp_path: Path) -> None:
    for seed in (42, 43, 42):
        run(tmp_path, seed)
    run(tmp_path, epochs=1)
    assert trained == [42, 43, 42]
    records = ablation.read(tmp_path / "results.jsonl")
    assert [(record["seed"], record["recipe"]["epochs"]) for record in records] == [(42, 3), (43, 3), (42, 1)]
    assert records[0]["cold_test"] == {
        **{"ndcg@20": 0.3, "precision@20": 0.1, "recall@20": 0.2, "A recall@20": 0.4, "A ndcg@20": 0.5},
        **{"B recall@20": 0.6, "B ndcg@20": 0.7, "nll": 5.0, "calibration error": 0.01},
    }


def test_every_seed_has_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation.alone(os.mkdir, tmp_path / "made")
    assert (tmp_path / "made").is_dir()
    with pytest.raises(SystemExit, match="exit code 3"):
        ablation.alone(os._exit, 3)
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ablation, "alone", lambda *call: calls.append(call))
    monkeypatch.setattr("sys.argv", ["ablation.py", str(tmp_path), str(tmp_path / "films"), "--seeds", "2", "--keep"])
    ablation.main()
    assert [(call[0], call[1].name, call[3].seed, call[-1]) for call in calls] == [
        (ablation.run_seed, "films", seed, True) for seed in (42, 43)
    ]


def test_checkpoints_are_deleted_unless_they_are_kept(trained: list[int], tmp_path: Path) -> None:
    run(tmp_path, 42)
    run(tmp_path, 43, keep=True)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["43"]


def test_a_run_that_was_trained_but_not_measured_is_measured(trained: list[int], tmp_path: Path) -> None:
    run(tmp_path, keep=True)
    (tmp_path / "results.jsonl").unlink()
    run(tmp_path, keep=True)
    assert trained == [42]
    assert len(ablation.read(tmp_path / "results.jsonl")) == 1
    with pytest.raises(SystemExit, match="another recipe"):
        run(tmp_path, epochs=1)


def test_a_checkpoint_without_a_report_is_made_again(trained: list[int], tmp_path: Path) -> None:
    (tmp_path / "set" / "42").mkdir(parents=True)
    run(tmp_path)
    assert trained == [42]


def record(seed: int, **ndcg: float) -> dict[str, Any]:
    found = {
        name.replace("_", " "): {"ndcg": value, "precision": value / 2, "recall": value / 4}
        for name, value in ndcg.items()
    }
    identity = {"name": "films", "dataset_sha256": "0", "encoder": "minilm", "seed": seed}
    recipe = ClosedFormRecipe(seed=seed, epochs=2).to_json()
    return {**identity, "recipe": recipe, "findings": {"candidates": found}, "cold_test": {"nll": 4.0 + seed}}


def test_differences_are_those_of_the_same_seed() -> None:
    table = ablation.tables([record(1, closed_form=0.2, head=0.3), record(2, closed_form=0.4, head=0.5, lora=0.38)])
    lines = table.splitlines()
    assert lines[0] == "**films**, minilm, epochs 2; seeds 1, 2"
    assert "| closed form | 2 | 0.3000 ± 0.1414 | 0.1500 ± 0.0707 | 0.0750 ± 0.0354 |  |  |  |" in lines
    head = "| head | 2 | 0.4000 ± 0.1414 | 0.2000 ± 0.0707 | 0.1000 ± 0.0354 "
    assert f"{head}| +0.1000 ± 0.0000 | +0.0500 ± 0.0000 | +0.0250 ± 0.0000 |" in lines
    assert "| lora | 1 | 0.3800 | 0.1900 | 0.0950 | -0.0200 | -0.0100 | -0.0050 |" in lines
    assert "| nll | 5.5000 ± 0.7071 |" in lines
    assert "lora + head" not in table


def test_recipes_are_not_mixed_and_reports_without_candidates_have_no_such_table() -> None:
    other = record(1)
    other["recipe"]["epochs"] = 1
    table = ablation.tables([record(1, closed_form=0.2), other])
    assert table.count("**films**") == 2
    assert table.count("cold_val") == 1


def test_every_hyper_parameter_is_an_option() -> None:
    options = ablation.parser().parse_args(["work", "set", "--max-length", "64", "--learning-rate", "0.1"])
    assert (options.max_length, options.learning_rate, options.epochs) == (64, 0.1, None)
