from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from fllm_export import build
from fllm_export.coldstart import loop_arms as arms_module
from fllm_export.coldstart import loop_evaluation as module
from fllm_export.coldstart.content_models import clcrec as module_of_clcrec
from fllm_export.coldstart.content_models.clcrec import Clcrec
from fllm_export.coldstart.content_models.dropout_net import DropoutNet
from fllm_export.coldstart.loop_arms import NO_PAIRS, OWN
from fllm_export.coldstart.loop_evaluation import evaluate_loop
from fllm_export.coldstart.loop_journal import FILE_NAME
from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.coldstart.recommender import BprRecommender
from fllm_export.coldstart.recommender_options import RecommenderOptions
from fllm_export.coldstart.vectors import Vectors
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import WARM_SPLITS, Pairs
from fllm_export.files import locked
from fllm_export.progress import silent

from .small_loop import USERS, save_model, taught_dataset

K = 5


class Stopped(Exception):
    """Raised in the middle of training."""


LIGHTGCN = BprRecommender(RecommenderOptions.default("lightgcn", dim=12, batch=128, epochs=4))
CONTENT = (
    DropoutNet(dim=8, hidden=16, batch=32, rate=1e-2, epochs=15),
    Clcrec(hidden=16, negatives=16, batch=64, rate=1e-2, epochs=8),
)
SETTING = {"seeds": 2, "k": K, "content_models": CONTENT}


@pytest.fixture(scope="module")
def world(tiny_checkpoint, tmp_path_factory):
    """A checkpoint, the data set of its own taste, and the loop over them with two seeds."""
    folder = tmp_path_factory.mktemp("world")
    save_model(tiny_checkpoint("bert", users=USERS, dim=16, lora=False), folder / "model")
    data = taught_dataset(folder / "model")
    found = evaluate_loop({"model": folder / "model"}, data, LIGHTGCN, folder / "out", **SETTING)
    return folder, data, found


def again(world, out, data=None, **options):
    folder, own, _ = world
    return evaluate_loop({"model": folder / "model"}, data or own, LIGHTGCN, out, **{**SETTING, **options})


def test_the_models_users_help_and_nothing_else_moves(world):
    _, _, found = world
    assert list(found.metrics) == [
        NO_PAIRS,
        "random users",
        "most active users",
        "user centroid",
        "text kNN",
        "DropoutNet",
        "CLCRec",
        "model",
        f"model, {OWN}",
    ]
    ours, control, chance = (found.figure(arm, "cold", "ndcg").mean for arm in ("model", NO_PAIRS, "random users"))
    assert ours > 1.5 * max(control, chance)
    assert found.figure("model", "overall", "ndcg").mean > found.figure(NO_PAIRS, "overall", "ndcg").mean
    ranks_by_itself = {"DropoutNet", "CLCRec", f"model, {OWN}"}
    assert {tuple(found.values(arm, "warm", "ndcg")) for arm in found.metrics if arm not in ranks_by_itself} == {
        tuple(found.values(NO_PAIRS, "warm", "ndcg"))
    }
    assert found.figure("model", "warm", "ndcg").p is None
    assert found.figure(f"model, {OWN}", "overall", "ndcg") is None
    assert found.figure(f"model, {OWN}", "cold", "ndcg").mean > 1.5 * control


def test_cold_test_pairs_change_the_figures_of_cold_items_and_no_choice(world, tmp_path):
    _, data, found = world
    cold = data.splits["cold_test"]
    turned = Pairs((cold.users + 7) % USERS, cold.items)
    poisoned = replace(data, splits={**data.splits, "cold_test": turned}, sha256="another")
    other = again(world, tmp_path, poisoned)
    assert other.params == found.params
    assert other.values(NO_PAIRS, "warm", "ndcg") == found.values(NO_PAIRS, "warm", "ndcg")
    assert other.values("model", "cold", "ndcg") != found.values("model", "cold", "ndcg")
    for arm in ("DropoutNet", "CLCRec"):
        assert other.values(arm, "warm", "ndcg") == found.values(arm, "warm", "ndcg")
    for name in (f"{name}lightgcn-{seed}.safetensors" for name in ("", "DropoutNet-", "CLCRec-") for seed in range(2)):
        assert (tmp_path / name).read_bytes() == (world[0] / "out" / name).read_bytes()


def test_saved_recommenders_hold_trained_items_alone(world):
    folder, data, _ = world
    saved = Vectors.load(folder / "out" / "lightgcn-1.safetensors")
    assert np.array_equal(saved.item_ids, data.item_ids[data.splits["train"].distinct_items])
    assert np.array_equal(saved.user_ids, data.user_ids)
    assert not list((folder / "out").glob("training-*"))


def test_an_interrupted_evaluation_continues(world, tmp_path, monkeypatch):
    folder, _, found = world
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    lines = (out / FILE_NAME).read_bytes().splitlines(keepends=True)
    (out / FILE_NAME).write_bytes(b"".join(lines[:10]) + lines[10][:20])
    for name in ("lightgcn-1.safetensors", "lightgcn-1.json"):
        (out / name).unlink()
    trained = []
    fitted = module._Loop._fitted

    def counted(loop, seed, file):
        trained.append(seed)
        return fitted(loop, seed, file)

    monkeypatch.setattr(module._Loop, "_fitted", counted)
    assert again(world, out).to_json() == found.to_json()
    assert trained == [1]
    assert sorted((out / FILE_NAME).read_bytes().splitlines()) == sorted(line.strip() for line in lines)
    assert again(world, out).to_json() == found.to_json()
    assert trained == [1], "a finished evaluation trains nothing"
    assert again(world, out, protocol="a").protocol == "a"


def test_a_second_evaluation_changes_nothing_before_it_is_refused(world, tmp_path):
    folder, data, _ = world
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with locked(out / ".loop.lock", UsageError("busy")), pytest.raises(UsageError, match="another evaluation"):
        again(world, out, replace(data, sha256="another"))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_figures_are_means_deviations_and_paired_tests(world):
    from scipy.stats import ttest_rel

    found = world[2]
    ours, control = (found.values(arm, "cold", "recall") for arm in ("model", NO_PAIRS))
    figure = found.figure("model", "cold", "recall")
    assert figure.mean == pytest.approx(np.mean(ours))
    assert figure.deviation == pytest.approx(np.std(ours, ddof=1))
    assert figure.p == pytest.approx(ttest_rel(ours, control).pvalue)
    printed = json.loads(json.dumps(found.to_json()))
    assert [arm["name"] for arm in printed["arms"]] == list(found.metrics)
    rows = found.markdown().splitlines()
    assert len(rows) == 2 + len(found.metrics)
    assert f"{figure.mean:.4f} ± {figure.deviation:.4f}" in rows[-2]


def test_content_models_rank_all_items_by_their_own_vectors(world):
    folder, data, found = world
    for arm in ("DropoutNet", "CLCRec"):
        assert list(found.params[arm]) == ["level"]
        assert found.values(arm, "warm", "ndcg") != found.values(NO_PAIRS, "warm", "ndcg")
        made = [Vectors.load(folder / "out" / f"{arm}-lightgcn-{seed}.safetensors") for seed in range(2)]
        assert np.array_equal(made[0].item_ids, data.item_ids)
        assert not np.array_equal(made[0].items, made[1].items)


def test_an_interrupted_content_model_continues_after_its_last_epoch(world, tmp_path, monkeypatch):
    folder, _, found = world
    out, trained = tmp_path / "out", []
    shutil.copytree(folder / "out", out)
    (out / FILE_NAME).unlink()
    (out / "CLCRec-lightgcn-0.json").unlink()
    epoch = module_of_clcrec._Run.epoch

    def stops(run, number):
        trained.append(number)
        if len(trained) == 3:
            raise Stopped
        epoch(run, number)

    monkeypatch.setattr(module_of_clcrec._Run, "epoch", stops)
    with pytest.raises(Stopped):
        again(world, out)
    assert again(world, out).to_json() == found.to_json()
    assert trained[:4] == [0, 1, 2, 2]
    assert not list(out.glob("training-*"))


def test_without_a_checkpoint_there_are_no_content_models(world, tmp_path, monkeypatch):
    monkeypatch.setattr(arms_module, "text_vectors", lambda *_: None)
    found = again(world, tmp_path, seeds=1)
    assert "text kNN" not in found.metrics
    assert not {"DropoutNet", "CLCRec"} & set(found.metrics)


@pytest.mark.parametrize(
    ("options", "words"), [({"k": 31}, "k is 31"), ({"seeds": 0}, "seeds"), ({"protocol": "c"}, "protocol")]
)
def test_what_cannot_be_evaluated_is_refused(world, tmp_path, options, words):
    folder, data, _ = world
    with pytest.raises(UsageError, match=words):
        evaluate_loop({"model": folder / "model"}, data, LIGHTGCN, tmp_path, **options)
    with pytest.raises(UsageError, match="no model"):
        evaluate_loop({}, data, LIGHTGCN, tmp_path)
    with pytest.raises(UsageError, match="two arms are called 'text kNN'"):
        evaluate_loop({"text kNN": folder / "model"}, data, LIGHTGCN, folder / "out", k=K)


@pytest.mark.parametrize("stopped", ["most active users", "model"])
def test_pairs_of_an_interrupted_rewrite_are_made_again(world, tmp_path, monkeypatch, stopped):
    folder, data, _ = world

    def pairs(k):
        arms = arms_module.arms_of({"model": folder / "model"}, (), data, tmp_path, None, k, silent)
        return {arm.name: arm.pairs.user_ids for arm in arms if arm.pairs is not None}

    def stops(own, path):
        own_save(own, path)
        if path.name == f"pairs-{stopped.replace(' ', '-')}.safetensors":
            raise Stopped

    first, own_save = pairs(K), PseudoPairs.save
    monkeypatch.setattr(PseudoPairs, "save", stops)
    with pytest.raises(Stopped):
        pairs(K + 1)
    monkeypatch.undo()
    then = pairs(K)
    assert list(then) == list(first)
    assert all(np.array_equal(then[name], users) for name, users in first.items())


def test_lists_longer_than_the_warm_items_are_refused(world, tmp_path):
    folder, data, _ = world
    few = {
        name: Pairs(*(part[pairs.items < 4] for part in (pairs.users, pairs.items)))
        for name, pairs in data.splits.items()
        if name in WARM_SPLITS
    }
    small = replace(data, splits={**data.splits, **few}, sha256="small")
    with pytest.raises(UsageError, match="k is 5; expected at most 4, the number of warm items"):
        evaluate_loop({"model": folder / "model"}, small, LIGHTGCN, tmp_path, **SETTING)


def test_a_bundle_takes_the_choices_of_its_checkpoint(world, tmp_path):
    folder, data, found = world
    build(folder / "model", tmp_path / "bundle", calibration=list(data.texts), k=K, min_recall=0)
    models = {"int8": tmp_path / "bundle", "model": folder / "model"}
    both = evaluate_loop(models, data, LIGHTGCN, tmp_path / "out", **SETTING)
    assert list(both.metrics)[-4:] == ["model", f"model, {OWN}", "int8", f"int8, {OWN}"], "checkpoints come first"
    assert both.params["int8"] == both.params["model"] == found.params["model"]
    assert both.values("int8", "cold", "ndcg") == pytest.approx(both.values("model", "cold", "ndcg"), rel=0.05)
    arms = arms_module.arms_of(models, (), data, tmp_path / "out", None, K, silent)
    assert {arm.name: arm.follows for arm in arms if arm.name in models} == {"model": None, "int8": "model"}


def test_a_bundle_of_another_checkpoint_chooses_by_itself(world, tiny_checkpoint, tmp_path):
    folder, data, _ = world
    save_model(tiny_checkpoint("bert", users=USERS, dim=16, lora=True), tmp_path / "other")
    build(tmp_path / "other", tmp_path / "bundle", calibration=list(data.texts), k=K, min_recall=0)
    models = {"model": folder / "model", "int8": tmp_path / "bundle"}
    arms = arms_module.arms_of(models, (), data, tmp_path, None, K, silent)
    assert {arm.name: arm.follows for arm in arms if arm.name in models} == {"model": None, "int8": None}
