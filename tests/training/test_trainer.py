from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("pyarrow")

from fllm_export.checkpoint.checkpoint import Checkpoint  # noqa: E402
from fllm_export.checkpoint.merge import load_unmerged, merge  # noqa: E402
from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.evaluation.dataset import Dataset  # noqa: E402
from fllm_export.evaluation.evaluation import evaluate  # noqa: E402
from fllm_export.evaluation.ranker import open_ranker  # noqa: E402
from fllm_export.training import trainer  # noqa: E402
from fllm_export.training.recipe import SoftmaxRecipe  # noqa: E402
from fllm_export.training.run_state import RunState  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

# Stage 1 and the warm-up are next to nothing, so that the LoRA epochs have everything to learn.
SMALL = SoftmaxRecipe(
    dim=16,
    max_length=32,
    vocabulary_epochs=1,
    vocabulary_batch=64,
    warmup_epochs=1,
    warmup_batch=16,
    warmup_learning_rate=1e-4,
    batch=16,
    learning_rate=1e-2,
    head_learning_rate=1e-2,
)
RESULT_FILES = ("head.safetensors", "users-00001-of-00001.safetensors", "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def data(small_dataset):
    return Dataset.load(small_dataset)


@pytest.fixture(scope="module")
def trained(data, tiny_bert_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "checkpoint"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    report = trainer.train(data, out, SMALL, encoder=str(tiny_bert_dir))
    torch.set_num_threads(threads)
    return out, report


def read(out):
    return [(out / name).read_bytes() for name in RESULT_FILES]


def test_the_checkpoint_is_whole_and_its_adapter_folds(trained, data, tiny_bert_dir):
    out, report = trained
    checkpoint = Checkpoint.load(out)
    assert checkpoint.base == out / "base"
    assert (checkpoint.spec.users, checkpoint.spec.dim, checkpoint.spec.mapper) == (160, 16, "linear")
    assert checkpoint.users.ids.tolist() == data.user_ids.tolist()
    assert merge(checkpoint, data.texts[:4]).report.lora_layers == 4
    assert not (out.parent / "checkpoint.training").exists()
    assert str(tiny_bert_dir.parent) not in (out / "adapter/adapter_config.json").read_text()
    content = json.loads((out / "training.json").read_text())
    assert content["kept_epoch"] == report.kept_epoch
    assert [record["epoch"] for record in content["epochs"]] == [0, 1, 2, 3]
    assert content["recipe"]["seed"] == 42
    assert str(tiny_bert_dir.parent) not in json.dumps(content)


def test_it_learns_and_the_saved_model_is_the_best_epoch(trained, data, one_thread):
    out, report = trained
    best = next(record for record in report.epochs if record.epoch == report.kept_epoch)
    assert best.recall == max(record.recall for record in report.epochs)
    assert report.kept_epoch > 0
    assert report.epochs[-1].loss < report.epochs[1].loss
    ranker = open_ranker(out)
    validation = evaluate(ranker, data, "cold_val", baselines=False)
    assert validation.users_of_items.recall == pytest.approx(best.recall, abs=1e-6)
    assert validation.users_of_items.precision == pytest.approx(best.precision, abs=1e-6)
    # 40 of the 160 users share an item's topic: chance finds 20 / 160 of its users, the topic alone 20 / 40.
    assert evaluate(ranker, data, "cold_test", baselines=False).users_of_items.recall > 0.3


@pytest.mark.parametrize(("patience", "epochs"), [(1, [0, 1]), (2, [0, 1, 2]), (9, [0, 1, 2, 3])])
def test_lora_ends_when_it_no_longer_helps(data, tiny_bert_dir, tmp_path, patience, epochs):
    # A learning rate of next to nothing leaves the ranking as it is, which is no gain.
    idle = replace(SMALL, learning_rate=1e-12, head_learning_rate=1e-12, patience=patience)
    report = trainer.train(data, tmp_path / "checkpoint", idle, encoder=str(tiny_bert_dir))
    assert [record.epoch for record in report.epochs] == epochs
    assert report.kept_epoch == 0


def test_the_adapter_does_something(trained, data):
    out, _ = trained
    whole = load_unmerged(Checkpoint.load(out)).item_vectors(data.texts[:8])
    loaded = Checkpoint.load(out)
    bare = Checkpoint(loaded.spec, loaded.base, None, loaded.mapper, loaded.users)
    assert np.abs(whole - load_unmerged(bare).item_vectors(data.texts[:8])).max() > 1e-4


def interrupted(at_stage, at_step):
    def progress(stage, done, total):
        if (stage, done) == (at_stage, at_step):
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize(("stage", "step"), [("stage 1: vocabulary", 1), ("LoRA", 2), ("LoRA", 9)])
def test_a_resumed_run_gives_what_an_uninterrupted_one_gives(trained, data, tiny_bert_dir, tmp_path, stage, step):
    out = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data, out, SMALL, encoder=str(tiny_bert_dir), progress=interrupted(stage, step))
    assert not out.exists()
    resumed = trainer.train(data, out, SMALL, encoder=str(tiny_bert_dir))
    assert read(out) == read(trained[0])
    assert [(r.loss, r.recall) for r in resumed.epochs] == [(r.loss, r.recall) for r in trained[1].epochs]


def test_an_unfinished_run_is_not_continued_with_other_options(data, tiny_bert_dir, tmp_path):
    out = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data, out, SMALL, encoder=str(tiny_bert_dir), progress=interrupted("stage 2: warm-up", 1))
    other = replace(SMALL, seed=7)
    with pytest.raises(UsageError, match=r"a run whose seed was 42.*expected 7.*delete .*checkpoint\.training"):
        trainer.train(data, out, other, encoder=str(tiny_bert_dir))


@pytest.mark.parametrize(("key", "name"), [("dataset", "data set"), ("encoder", "encoder")])
def test_an_unfinished_run_of_another_data_set_or_encoder_is_named_without_its_hash(tmp_path, key, name):
    RunState.open(tmp_path / "run", {key: "5f1e"})
    with pytest.raises(UsageError, match=f"a run with another {name}; .*delete .*run to start again") as error:
        RunState.open(tmp_path / "run", {key: "9a2c"})
    assert "5f1e" not in str(error.value)


def test_the_callers_random_state_is_left_alone(data, tiny_bert_dir, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe = replace(SMALL, epochs=1)
    trainer.train(data, tmp_path / "checkpoint", recipe, encoder=str(tiny_bert_dir))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mapper", ["linear_relu", "mlp"])
def test_a_decoder_takes_a_few_steps(data, tiny_llama_dir, tmp_path, mapper):
    recipe = replace(SMALL, max_steps=2, mapper=mapper, max_length=64)
    report = trainer.train(data, tmp_path / "checkpoint", recipe, encoder=str(tiny_llama_dir))
    assert report.items == 2 * recipe.batch
    assert [record.epoch for record in report.epochs] == [0, 1]
    assert report.kept_epoch == 1
    checkpoint = Checkpoint.load(tmp_path / "checkpoint")
    assert (checkpoint.spec.pooling, checkpoint.spec.padding_side, checkpoint.spec.mapper) == ("last", "left", mapper)
    assert merge(checkpoint, data.texts[:4]).report.lora_layers == 4


def test_more_steps_than_an_epoch_has_end_inside_a_later_one(data, tiny_bert_dir, tmp_path):
    recipe = replace(SMALL, max_steps=8)
    steps = []
    report = trainer.train(
        data,
        tmp_path / "checkpoint",
        recipe,
        encoder=str(tiny_bert_dir),
        progress=lambda stage, done, total: steps.append((done, total)) if stage == "LoRA" else None,
    )
    assert report.items == 88
    assert steps == [(n, 8) for n in range(1, 9)]
    assert report.epochs[-1].epoch == 2


def test_without_lora_epochs_there_is_no_adapter(data, tiny_bert_dir, tmp_path):
    recipe = replace(SMALL, epochs=0)
    report = trainer.train(data, tmp_path / "checkpoint", recipe, encoder=str(tiny_bert_dir))
    assert report.kept_epoch == 0
    assert Checkpoint.load(tmp_path / "checkpoint").adapter is None


def test_a_checkpoint_is_never_overwritten(trained, data):
    with pytest.raises(UsageError, match="holds a checkpoint"):
        trainer.train(data, trained[0], SMALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", -1), ("dim", 0), ("mapper", "identity"), ("lora_dropout", 1.0), ("learning_rate", float("nan"))],
)
def test_a_recipe_without_meaning_is_refused(field, value):
    with pytest.raises(UsageError, match=field):
        SoftmaxRecipe(**{field: value})


def test_a_number_outside_its_limits_is_refused_with_the_limits_as_numbers():
    with pytest.raises(UsageError, match="dim is 0; expected an integer from 1 to "):
        SoftmaxRecipe(dim=0)
    with pytest.raises(UsageError, match="epochs is -1; expected an integer from 0 to "):
        SoftmaxRecipe(epochs=-1)
