"""From item texts and interactions to a checkpoint, by one of two recipes."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, closing
from pathlib import Path

import torch

from fllm_export import arguments
from fllm_export.checkpoint.spec import SPEC_FILE
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import Dataset
from fllm_export.progress import Progress, silent
from fllm_export.system_errors import check_place
from fllm_export.training.arithmetic import Arithmetic
from fllm_export.training.closed_form_trainer import ClosedFormTrainer
from fllm_export.training.encoders import NAMES, choose_encoder
from fllm_export.training.lora_trainer import LoraTrainer
from fllm_export.training.material import Material
from fllm_export.training.recipe import ClosedFormRecipe, Recipe, SoftmaxRecipe
from fllm_export.training.run_log import RunLog
from fllm_export.training.run_state import RunState
from fllm_export.training.softmax_trainer import SoftmaxTrainer
from fllm_export.training.training_report import FILE_NAME, TrainingReport


def train(
    dataset: Dataset | str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    encoder: str | Path = "minilm",
    log: str | Path | None = None,
    progress: Progress = silent,
) -> TrainingReport:
    """Train a FilterLLM and save it as a self-contained checkpoint in ``out``, unless the same call has done so.

    After every epoch the run's state is kept in ``<out>.training``; the same call goes on where it stopped and
    gives, on a CPU with the same number of threads, the same result as a run that never stopped. The folder is
    removed when the checkpoint is complete. Where torch finds a GPU, the encoder and the loss of LoRA are placed on it.

    Args:
        dataset: a data set or its directory; it needs pairs in ``train`` and ``cold_val``.
        out: a new or empty directory, or the checkpoint of the same call, whose report is returned.
        recipe: the hyper-parameters; :class:`ClosedFormRecipe` with its defaults when not given.
        encoder: ``minilm``, ``mpnet``, ``smollm2`` or a local directory of sentence-transformers or Hugging Face.
        log: a directory for a log that TensorBoard shows, outside ``out`` and ``<out>.training``: loss, learning rate
            and throughput of each LoRA step, loss and ranking of each epoch. None for no log.
        progress: counts items, epochs and steps.

    Raises:
        UsageError: ``out`` holds something else, or a checkpoint of other arguments, an argument is invalid, an
            unfinished run of other options is there, or the precision is float16 and there is no GPU.
        BundleError: the report of a finished run is damaged.
        HardwareError: the encoder's package is not installed, or a log is requested and tensorboard is not.
    """
    out, recipe = arguments.path(out, "out"), ClosedFormRecipe() if recipe is None else recipe
    encoder = str(arguments.path(encoder, "encoder"))
    if not isinstance(recipe, ClosedFormRecipe | SoftmaxRecipe):
        raise UsageError(f"recipe is a {type(recipe).__name__}", expected="a ClosedFormRecipe or a SoftmaxRecipe")
    if not isinstance(dataset, Dataset):
        dataset = Dataset.load(arguments.path(dataset, "dataset"))
    workspace = out.with_name(out.name + ".training")
    check_place(out, "out")
    if (out / FILE_NAME).is_file():
        return _finished(dataset, out, recipe, encoder)
    _check_request(dataset, out)
    run_log = _run_log(log, out, workspace)
    with closing(run_log), Arithmetic.of(recipe.precision) as arithmetic, _random_state(arithmetic.device):
        choice = choose_encoder(encoder, workspace)
        fingerprint = choice.fingerprint()
        identity = {**recipe.to_json(), "encoder": fingerprint, "dataset": dataset.sha256}
        run = RunState.open(workspace, identity)
        trainer = _trainer(Material(dataset, choice, recipe, arithmetic, progress), recipe, run, progress)
        trainer.run_epochs(run_log)
        checkpoint = trainer.checkpoint(workspace)
        checkpoint.save(out, progress)
    report = TrainingReport(
        recipe=recipe,
        encoder=_name(encoder),
        encoder_sha256=fingerprint,
        dataset_sha256=dataset.sha256,
        items=len(trainer.material.items),
        users=len(dataset.user_ids),
        dim=checkpoint.spec.dim,
        epochs=run.records,
        kept_epoch=trainer.kept_epoch,
        findings=trainer.findings(),
        seconds=run.seconds,
    )
    report.save(out)
    shutil.rmtree(workspace)
    return report


def _finished(dataset: Dataset, out: Path, recipe: Recipe, encoder: str) -> TrainingReport:
    """Return the report of the checkpoint in ``out``, if the same arguments have made it."""
    facts = {"encoder": _name(encoder), "dataset_sha256": dataset.sha256}
    if encoder not in NAMES:  # the others would have to be unpacked first
        facts["encoder_sha256"] = choose_encoder(encoder, out).fingerprint()
    return TrainingReport.load(out, recipe, **facts)


def _name(encoder: str) -> str:
    return encoder if not Path(encoder).is_dir() else Path(encoder).resolve().name


def _run_log(log: str | Path | None, *own: Path) -> RunLog:
    if log is None:
        return RunLog(None)
    directory = arguments.path(log, "log")
    for place in own:
        # The checkpoint's directory must stay empty until the end, and the workspace is removed then.
        if directory.resolve().is_relative_to(place.resolve()):
            raise UsageError(f"log is {directory}", expected=f"a directory outside {place}")
    return RunLog(directory)


def _random_state(device: torch.device) -> AbstractContextManager[None]:
    """Return what lets the caller's random state come out as it went in; a run sets its own seeds."""
    return torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else [])


def _check_request(dataset: Dataset, out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        held = "holds a checkpoint" if (out / SPEC_FILE).exists() else "is not empty"
        raise UsageError(f"{out} {held}", expected="a new directory", fix="Choose another, or delete it")
    if not len(dataset.splits["cold_val"]):
        raise UsageError(
            "the data set has no pairs in cold_val",
            expected="at least one pair, which chooses the best epoch and the hyper-parameters",
        )


def _trainer(material: Material, recipe: Recipe, run: RunState, progress: Progress) -> LoraTrainer:
    if isinstance(recipe, SoftmaxRecipe):
        return SoftmaxTrainer(material, recipe, run, progress)
    assert isinstance(recipe, ClosedFormRecipe)
    return ClosedFormTrainer(material, recipe, run, progress)
