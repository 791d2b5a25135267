from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("accelerate")
pytest.importorskip("pyarrow")

from fllm_export.errors import HardwareError, UsageError  # noqa: E402
from fllm_export.evaluation.dataset import Dataset  # noqa: E402
from fllm_export.training import trainer  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe  # noqa: E402
from fllm_export.training.run_log import RunLog  # noqa: E402
from fllm_export.training.run_state import EpochRecord  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

# 88 training items: six steps an epoch.
SMALL = ClosedFormRecipe(dim=16, max_length=32, epochs=2, batch=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def data(small_dataset):
    return Dataset.load(small_dataset)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars that TensorBoard shows of a directory: by name, step and value."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_an_interrupted_run_has_one_scalar_a_step_and_the_figures_of_each_epoch(data, tiny_bert_dir, tmp_path):
    pytest.importorskip("tensorboard")

    def interrupt(stage, done, total):
        if (stage, done) == ("LoRA", 9):
            raise KeyboardInterrupt

    common = {"encoder": str(tiny_bert_dir), "log": tmp_path / "log"}
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data, tmp_path / "out", SMALL, **common, progress=interrupt)
    before = scalars(tmp_path / "log")
    assert [step for step, _ in before["train/loss"]] == list(range(1, 10))
    report = trainer.train(data, tmp_path / "out", SMALL, **common)
    found = scalars(tmp_path / "log")
    assert set(found) == {
        *(f"train/{name}" for name in ("loss", "learning_rate", "items_per_second")),
        *("epoch/loss", "cold_val/precision@20", "cold_val/recall@20", "cold_val/ndcg@20"),
    }
    for name in ("loss", "learning_rate", "items_per_second"):
        assert [step for step, _ in found[f"train/{name}"]] == list(range(1, 13))
    assert found["train/loss"][:9] == before["train/loss"]
    rates = [value for _, value in found["train/learning_rate"]]
    assert max(rates) == pytest.approx(SMALL.learning_rate)
    assert rates[-1] < rates[5] < rates[0]
    assert all(value > 0 for _, value in found["train/items_per_second"])
    for tag, figure in (("epoch/loss", "loss"), ("cold_val/ndcg@20", "ndcg"), ("cold_val/recall@20", "recall")):
        expected = [(6 * record.epoch, pytest.approx(getattr(record, figure))) for record in report.epochs]
        assert found[tag] == expected
    # The last epoch's loss is the mean of its steps' losses, by items: five full batches and one of eight.
    losses = [value for _, value in found["train/loss"][6:]]
    assert min(losses) < report.epochs[-1].loss < max(losses)


def test_a_new_run_hides_what_an_earlier_one_left_in_the_directory(tmp_path):
    pytest.importorskip("tensorboard")
    for loss in (2.0, 3.0):
        log = RunLog(tmp_path)
        log.begin(None)
        log.epoch(0, EpochRecord(0, loss, 0.1, 0.2, 0.3, 1.0))
        log.close()
    assert scalars(tmp_path)["epoch/loss"] == [(0, 3.0)]


def test_without_tensorboard_a_log_is_refused_before_anything_is_written(data, tiny_bert_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(HardwareError, match=r"pip install 'fllm-export\[tensorboard\]'"):
        trainer.train(data, tmp_path / "out", SMALL, encoder=str(tiny_bert_dir), log=tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["out", "out/log", "out.training", "out.training/log"])
def test_a_log_within_the_runs_own_directories_is_refused(data, tiny_bert_dir, tmp_path, place):
    pytest.importorskip("tensorboard")
    with pytest.raises(UsageError, match=r"log is .*; expected a directory outside"):
        trainer.train(data, tmp_path / "out", SMALL, encoder=str(tiny_bert_dir), log=tmp_path / place)
    assert list(tmp_path.iterdir()) == []


def test_a_log_at_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "log").write_text("")
    with pytest.raises(UsageError, match=r"log is .*, which is a file; expected a directory"):
        RunLog(tmp_path / "log")
