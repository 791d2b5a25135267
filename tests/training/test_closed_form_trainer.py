from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("pyarrow")
pytest.importorskip("scipy")

from fllm_export import Runtime, build  # noqa: E402
from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import load_unmerged, merge  # noqa: E402
from fllm_export.cli.main import main  # noqa: E402
from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.evaluation.dataset import Dataset, Pairs  # noqa: E402
from fllm_export.evaluation.evaluation import evaluate  # noqa: E402
from fllm_export.evaluation.ranker import open_ranker  # noqa: E402
from fllm_export.table.learner import Learner  # noqa: E402
from fllm_export.training import fitted_form, probabilities, trainer  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe  # noqa: E402
from fllm_export.training.run_state import RunState  # noqa: E402
from fllm_export.training.setting_search import Grid  # noqa: E402

SMALL = ClosedFormRecipe(max_length=32, batch=16, learning_rate=5e-3, lora_rank=4, epochs=2)
GRID = Grid(gammas=(2.0, 8.0), penalties=(1.0,), item_powers=(0.25,), user_powers=(0.0, 0.2))
STEPS = 6  # an epoch: 88 training items in batches of 16


@pytest.fixture(scope="module", autouse=True)
def small_and_steady():
    """Four points of the grid, and one thread, so that sums come out the same every time."""
    patch, threads = pytest.MonkeyPatch(), torch.get_num_threads()
    patch.setattr(fitted_form, "_GRID", GRID)
    patch.setattr(fitted_form, "_LEAST_DIM", 4)
    patch.setattr(probabilities, "USER_POWERS", (0.0, 0.3))
    patch.setattr(probabilities, "BETAS", (0.0, 0.3, 0.6))
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture(scope="module")
def data(small_dataset):
    return Dataset.load(small_dataset)


@pytest.fixture(scope="module")
def trained(data, tiny_bert_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("closed-form") / "checkpoint"
    return out, trainer.train(data, out, SMALL, encoder=tiny_bert_dir)


def written(out):
    """Every file of a checkpoint but the report, whose wall times differ."""
    return {
        str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "training.json"
    }


def said(report):
    """What a report says, wall times aside."""
    epochs = [replace(record, seconds=0) for record in report.epochs]
    return epochs, report.kept_epoch, report.dim, report.findings


def test_the_checkpoint_is_whole_and_its_adapter_folds(trained, data):
    out, report = trained
    checkpoint = Checkpoint.load(out)
    assert report.kept_epoch > 0
    assert checkpoint.base == out / "base"
    assert (checkpoint.spec.mapper, checkpoint.spec.users, checkpoint.spec.dim) == ("kernel", 160, report.dim)
    assert checkpoint.users.ids.tolist() == data.user_ids.tolist()
    assert merge(checkpoint, data.texts[:4]).report.lora_layers == 2 * 6
    assert not (out.parent / "checkpoint.training").exists()
    bare = replace(checkpoint, adapter=None)
    vectors = [load_unmerged(each).item_vectors(data.texts[:8]) for each in (checkpoint, bare)]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_it_learns_and_evaluates_to_the_ndcg_on_record(trained, data):
    out, report = trained
    assert report.epochs[-1].loss < report.epochs[1].loss
    best = max(record.ndcg for record in report.epochs)
    assert next(r.ndcg for r in report.epochs if r.epoch == report.kept_epoch) == best
    found = evaluate(open_ranker(out), data, "cold_val", baselines=False)
    kept = report.findings["candidates"][report.findings["kept"]]
    assert found.users_of_items.ndcg == pytest.approx(kept["ndcg"], abs=2e-3)
    assert found.users_of_items.recall == pytest.approx(kept["recall"], abs=2e-3)
    assert found.users_of_items.ndcg >= 0.95 * best
    cold = evaluate(open_ranker(out), data, "cold_test", baselines=False)
    # 40 of the 160 users share an item's topic: chance finds 20 / 160 of its users, the topic alone 20 / 40.
    assert cold.users_of_items.recall > 0.3
    assert cold.likelihood.per_pair < cold.likelihood.uniform - 0.5


def test_what_was_found_is_in_the_report(trained):
    out, report = trained
    content = json.loads((out / "training.json").read_text())
    assert content["recipe"] == SMALL.to_json()
    assert content["recipe"]["vocabulary"] == "closed_form"
    assert [record["epoch"] for record in content["epochs"]] == [0, 1, 2]
    findings = content["findings"]
    assert findings == json.loads(json.dumps(report.findings))
    reached = [record["ndcg"] for record in content["epochs"]]
    assert findings["lora_gain"] == pytest.approx(max(reached) - reached[0], abs=1e-6)
    candidates = {name: figures["ndcg"] for name, figures in findings["candidates"].items()}
    assert list(candidates) == ["closed form", "head", "lora", "lora + head"]
    assert candidates[findings["kept"]] >= max(candidates.values()) / 1.005
    assert (findings["head"] is None) == ("head" not in findings["kept"])
    assert findings["setting"]["gamma"] in GRID.gammas
    held = {int(dim): value for dim, value in findings["ndcg_by_dim"].items()}
    assert report.dim == min(dim for dim, value in held.items() if value >= 0.995 * max(held.values()))
    link = Checkpoint.load(out).spec.link
    assert findings["link"] == str(link)
    if findings["probabilities"]["link"] == "exponential":
        assert findings["probabilities"]["activity"] in probabilities.BETAS
    assert set(content["seconds"]) == {"frozen_states", "grid", "closed_form"}


class Interruption:
    """Stops a run when a stage has come to a step for the n-th time."""

    def __init__(self, stage, step, time):
        self.at, self.left = (stage, step), time

    def __call__(self, stage, done, total):
        self.left -= (stage, done) == self.at
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "step", "time"),
    [
        ("frozen encoder", 64, 1),
        ("closed form: grid", 2, 1),
        ("LoRA", 2, 1),
        ("LoRA", STEPS, 1),
        ("encoding", 64, 1),
        ("LoRA", STEPS + 3, 1),
        ("closed form: grid", 4, 3),  # the last epoch's
    ],
)
def test_a_resumed_run_gives_what_an_uninterrupted_one_gives(trained, data, tiny_bert_dir, tmp_path, stage, step, time):
    out = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data, out, SMALL, encoder=tiny_bert_dir, progress=Interruption(stage, step, time))
    assert not out.exists()
    resumed = trainer.train(data, out, SMALL, encoder=tiny_bert_dir)
    assert written(out) == written(trained[0])
    assert said(resumed) == said(trained[1])


def test_a_run_that_stopped_after_its_last_epoch_goes_on(trained, data, tiny_bert_dir, tmp_path, monkeypatch):
    out = tmp_path / "checkpoint"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitted_form.FittedForm, "of", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(data, out, SMALL, encoder=tiny_bert_dir)
    assert not out.exists()
    resumed = trainer.train(data, out, SMALL, encoder=tiny_bert_dir)
    assert written(out) == written(trained[0])
    assert said(resumed) == said(trained[1])


def test_an_unfinished_run_is_not_continued_in_the_other_way(data, tiny_bert_dir, tmp_path):
    out = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data, out, SMALL, encoder=tiny_bert_dir, progress=Interruption("LoRA", 1, 1))
    with pytest.raises(UsageError, match=r"a run whose landmarks was None.*expected 30.*delete"):
        trainer.train(data, out, replace(SMALL, landmarks=30), encoder=tiny_bert_dir)


@pytest.mark.parametrize("epochs", [0, 1])
def test_where_lora_does_not_help_there_is_no_adapter(data, tiny_bert_dir, tmp_path, epochs):
    recipe = replace(SMALL, epochs=epochs, learning_rate=1e-9, dim=8)
    report = trainer.train(data, tmp_path / "checkpoint", recipe, encoder=tiny_bert_dir)
    assert (len(report.epochs), report.kept_epoch, report.dim) == (1 + epochs, 0, 8)
    assert report.findings["lora_gain"] == 0
    assert not (tmp_path / "checkpoint" / "adapter").exists()
    assert Checkpoint.load(tmp_path / "checkpoint").adapter is None


def test_a_short_run_of_a_decoder_keeps_its_last_epoch(data, tiny_llama_dir, tmp_path):
    recipe = replace(SMALL, max_steps=2, max_length=64)
    report = trainer.train(data, tmp_path / "checkpoint", recipe, encoder=tiny_llama_dir)
    assert (report.items, [record.epoch for record in report.epochs], report.kept_epoch) == (32, [0, 1], 1)
    assert report.findings["lora_gain"] == pytest.approx(report.epochs[1].ndcg - report.epochs[0].ndcg, abs=1e-6)
    checkpoint = Checkpoint.load(tmp_path / "checkpoint")
    assert (checkpoint.spec.pooling, checkpoint.spec.padding_side, checkpoint.spec.mapper) == ("last", "left", "kernel")
    assert merge(checkpoint, data.texts[:4]).report.lora_layers == 2 * 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 89}, "dim is 89 and there are 88 training items; expected at most 88"),
        ({"dim": 31, "landmarks": 30}, "dim is 31 and there are 30 landmarks"),
        ({"max_steps": 1, "batch": 1}, "1 training items"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(data, tiny_bert_dir, tmp_path, changes, words):
    stages = []
    with pytest.raises(UsageError, match=words):
        trainer.train(
            data,
            tmp_path / "checkpoint",
            replace(SMALL, **changes),
            encoder=tiny_bert_dir,
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert set(stages) <= {"frozen encoder"}


def permuted(pairs, users, seed=0):
    """The same items, with other users."""
    return Pairs(np.random.default_rng(seed).permutation(users)[pairs.users], pairs.items)


def with_splits(data, **splits):
    return replace(data, splits={**data.splits, **splits})


def test_no_pair_of_cold_test_enters(trained, data, tiny_bert_dir, tmp_path):
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    for name, pairs in (("other", permuted(data.splits["cold_test"], 160)), ("none", nothing)):
        report = trainer.train(with_splits(data, cold_test=pairs), tmp_path / name, SMALL, encoder=tiny_bert_dir)
        assert written(tmp_path / name) == written(trained[0])
        assert said(report) == said(trained[1])


def test_a_training_pair_does_enter(trained, data, tiny_bert_dir, tmp_path):
    other = with_splits(data, train=permuted(data.splits["train"], 160))
    trainer.train(other, tmp_path / "other", SMALL, encoder=tiny_bert_dir)
    assert (
        written(tmp_path / "other")["users-00001-of-00001.safetensors"]
        != written(trained[0])["users-00001-of-00001.safetensors"]
    )


def test_pairs_of_cold_val_only_choose(data, tiny_bert_dir, tmp_path, monkeypatch):
    """Other items and users in cold_val: the same LoRA, states and losses, and the same model if nothing is chosen."""
    kept = []
    save_epoch = RunState.save_epoch

    def noted(self, record, weights, optimizer):
        parts = {name: w.detach().numpy().tobytes() for name, w in weights.items() if name != "states.validation"}
        kept[-1].append((record.loss, parts))
        save_epoch(self, record, weights, optimizer)

    monkeypatch.setattr(RunState, "save_epoch", noted)
    monkeypatch.setattr(fitted_form, "_GRID", Grid((4.0,), (1.0,), (0.25,), (0.2,)))
    monkeypatch.setattr(probabilities, "BETAS", (0.3,))
    monkeypatch.setattr(probabilities, "USER_POWERS", (0.2,))
    recipe = replace(SMALL, dim=8, max_steps=2 * STEPS, head_epochs=0)
    found = []
    other = with_splits(data, cold_val=permuted(data.splits["cold_test"], 160))
    for number, variant in enumerate((data, other)):
        kept.append([])
        out = tmp_path / str(number)
        report = trainer.train(variant, out, recipe, encoder=tiny_bert_dir)
        found.append((written(out), [record.ndcg for record in report.epochs]))
    assert len(kept[0]) == 3
    assert kept[0] == kept[1]
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]
    checkpoint = Checkpoint.load(tmp_path / "0")
    rule, rows = checkpoint.rule, np.concatenate(list(checkpoint.users.chunks()))
    learner = Learner.of(rule.item_ids, rule.contributions, rule.user_power, rule.activity)
    learned = learner.rows(rule.starts, rule.items)
    np.testing.assert_allclose(learned, rows, rtol=0, atol=1e-6 * np.abs(rows).max())
    np.testing.assert_array_equal(learner.bias(rule.starts), checkpoint.users.bias)
    train = data.splits["train"]
    known = np.stack([np.repeat(np.arange(160), np.diff(rule.starts)), rule.item_ids[rule.items]])
    assert set(zip(*known.tolist(), strict=True)) == set(zip(train.users, data.item_ids[train.items], strict=True))


def test_it_builds_to_a_bundle_with_biases_that_answers_alike(data, tiny_bert_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(probabilities, "BETAS", (0.5,))
    trainer.train(data, tmp_path / "checkpoint", replace(SMALL, epochs=1), encoder=tiny_bert_dir)
    checkpoint = Checkpoint.load(tmp_path / "checkpoint")
    assert np.ptp(checkpoint.users.bias) > 0
    texts = [data.texts[item] for item in data.splits["cold_test"].distinct_items]
    build(checkpoint, tmp_path / "bundle", calibration=list(data.texts), quant="int8", min_recall=0.9)
    answer = Runtime.open(tmp_path / "bundle").topk(texts, k=20)
    rows = np.concatenate(list(checkpoint.users.chunks())).astype(float)
    scores = load_unmerged(checkpoint).item_vectors(texts) @ rows.T + checkpoint.users.bias
    m, total = checkpoint.spec.link.log_sums(scores)
    logs = checkpoint.spec.link.logits(scores) - (m + np.log(total))[:, None]
    best = np.sort(logs, 1)[:, ::-1][:, :20]
    assert np.allclose(answer.log_probs, best, atol=0.1)
    # A user may take the place of another only where their scores are within what int8 rounds.
    places = np.searchsorted(checkpoint.users.ids, answer.user_ids)
    assert np.all(np.take_along_axis(logs, places, 1) > best[:, -1:] - 0.1)
    assert np.all(logs[np.arange(len(texts)), places[:, 0]] > best[:, 0] - 0.1)


@pytest.mark.parametrize(
    ("vocabulary", "option", "value"),
    [
        ("closed_form", "--mapper", "linear"),
        ("closed_form", "--guidance", "5"),
        ("bpr", "--landmarks", "100"),
        ("bpr", "--head-epochs", "2"),
        ("bpr", "--link", "auto"),
    ],
)
def test_options_of_the_other_way_are_refused(small_dataset, tmp_path, vocabulary, option, value):
    out = tmp_path / "checkpoint"
    given = ["train", str(small_dataset), "--out", str(out), "--vocabulary", vocabulary, option, value]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2
    assert f"{option} has no meaning with --vocabulary {vocabulary}" in result.stderr
    assert not list(tmp_path.iterdir())
