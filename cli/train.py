"""``fllm-export train``: from item texts and interactions to a checkpoint."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fllm_export.cli.dataset import open_dataset
from fllm_export.cli.options import DIRECTORY, threads_option
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.errors import HardwareError, UsageError

if TYPE_CHECKING:
    from fllm_export.training.recipe import Recipe
    from fllm_export.training.training_report import TrainingReport


@click.command()
@click.argument("dataset", type=DIRECTORY)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the new checkpoint.")
@click.option(
    "--encoder",
    default="minilm",
    show_default=True,
    help="minilm, mpnet, smollm2, or a local directory of sentence-transformers or Hugging Face.",
)
@click.option(
    "--vocabulary",
    type=click.Choice(["closed_form", "bpr"]),
    default="closed_form",
    show_default=True,
    help="How user rows are made: in closed form, or as published, by item-oriented BPR and a softmax over all users.",
)
@click.option("--dim", type=int, help="Dimension of a user row.  [default: chosen on cold_val; 256 with bpr]")
@click.option(
    "--landmarks",
    type=int,
    help="closed_form: maximum number of landmarks of the kernel. Up to so many training items it is exact.  "
    "[default: all of up to 24576 items, 8192 of more]",
)
@click.option(
    "--head-epochs",
    type=int,
    help="closed_form: epochs of a softmax head that the closed form teaches; 0 for none.  [default: 6]",
)
@click.option(
    "--link",
    type=click.Choice(["auto", "exponential"]),
    help="closed_form: how scores become probabilities. auto chooses by likelihood; GPU engines need exponential.  "
    "[default: auto]",
)
@click.option(
    "--mapper",
    type=click.Choice(["linear", "linear_relu", "mlp"]),
    help="bpr: what maps the encoder's hidden state to the item vector.  [default: linear]",
)
@click.option("--guidance", type=float, help="bpr: weight lambda of the guidance loss.  [default: 10.0]")
@click.option(
    "--max-length",
    type=int,
    default=128,
    show_default=True,
    help="Maximum number of tokens per prompt; the encoder's own limit can be lower.",
)
@click.option(
    "--epochs",
    type=int,
    default=3,
    show_default=True,
    help="Maximum number of LoRA epochs; 0 keeps the encoder frozen.",
)
@click.option(
    "--patience",
    type=int,
    default=1,
    show_default=True,
    help="End LoRA after this many epochs in a row that do not raise NDCG@20 on cold_val.",
)
@click.option(
    "--max-steps", type=int, help="Maximum number of LoRA steps, for a short run on the items of those steps."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Precision of the encoder while LoRA is trained. float16 needs a GPU.",
)
@click.option(
    "--accumulation",
    type=int,
    default=1,
    show_default=True,
    help="Parts into which the items of a LoRA step are split. More parts need less memory.",
)
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of all random numbers.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="Directory of a log that TensorBoard shows. It needs the extra tensorboard.",
)
@click.option("--strict", is_flag=True, help="Refuse users without a training pair, instead of leaving them out.")
@threads_option
@json_option
@pass_output
def train(
    output: Output,
    /,
    dataset: Path,
    out: Path,
    encoder: str,
    vocabulary: str,
    log: Path | None,
    strict: bool,
    threads: int | None,
    **numbers: Any,
) -> None:
    """Train a FilterLLM on DATASET, a directory of two files.

    items.parquet has the columns item_id and text. interactions.parquet has the columns user_id, item_id and split.
    Both can also be .csv, .tsv or .jsonl. Users without a training pair are left out.

    After an interruption, run the same command again. It continues after the last complete epoch. A finished run with
    the same options and data is not repeated.
    """
    for package in ("torch", "transformers", "peft", "accelerate", "pyarrow", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise HardwareError(f"{package} is not installed", fix="Run pip install 'fllm-export[train]'")
    import torch

    from fllm_export.environment import thread_count
    from fllm_export.training import trainer
    from fllm_export.training.training_report import FILE_NAME

    recipe = _recipe(vocabulary, {name: value for name, value in numbers.items() if value is not None})
    torch.set_num_threads(thread_count(threads))
    data = open_dataset(output, dataset, strict=strict)
    before = (out / FILE_NAME).is_file()
    report = trainer.train(data, out, recipe, encoder=encoder, log=log, progress=output.progress)
    if before:
        output.say("up to date: nothing was trained")
    result = {"checkpoint": str(out), "users_left_out": data.left_out, **report.to_json()}
    output.result(result, _table(report, out))


def _recipe(vocabulary: str, given: dict[str, Any]) -> Recipe:
    """Return the recipe of the options that were given; those that belong to the other way are refused."""
    from fllm_export.training.recipe import ClosedFormRecipe, SoftmaxRecipe

    kind = SoftmaxRecipe if vocabulary == SoftmaxRecipe.vocabulary else ClosedFormRecipe
    foreign = sorted(given.keys() - {field.name for field in fields(kind)})
    if foreign:
        option = foreign[0].replace("_", "-")
        other = ClosedFormRecipe if kind is SoftmaxRecipe else SoftmaxRecipe
        raise UsageError(
            f"--{option} has no meaning with --vocabulary {vocabulary}",
            expected="options of that way of training",
            fix=f"Leave --{option} out, or train with --vocabulary {other.vocabulary}",
        )
    return kind(**given)


def _table(report: TrainingReport, out: Path) -> str:
    rows = [
        [
            f"{record.epoch}" + (" (kept)" if record.epoch == report.kept_epoch else ""),
            f"{record.loss:.4f}",
            f"{record.precision:.4f}",
            f"{record.recall:.4f}",
            f"{record.ndcg:.4f}",
            f"{record.seconds:.0f}",
        ]
        for record in report.epochs
    ]
    table = columns(["epoch", "loss", "precision@20", "recall@20", "ndcg@20", "seconds"], rows)
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    return (
        f"{table}\n\n{_note(report)}\nOther stages: {stages}.\nCheckpoint: {out} (user rows of {report.dim} dimensions)"
    )


def _note(report: TrainingReport) -> str:
    note = "Users of the items of cold_val; epoch 0 is the frozen encoder."
    candidates = report.findings.get("candidates")
    if candidates is not None:
        return f"{note}\n\n{_candidates(candidates, report.findings['kept'])}\n{_comparison(report)}"
    if report.kept_epoch == 0 and len(report.epochs) > 1:
        note += "\nNo LoRA epoch ranked better than the frozen encoder, so the adapter that is kept changes nothing."
    return note


def _candidates(candidates: dict[str, dict[str, float]], kept: str) -> str:
    rows = [
        [
            name + (" (kept)" if name == kept else ""),
            *(f"{figures[key]:.4f}" for key in ("precision", "recall", "ndcg")),
        ]
        for name, figures in candidates.items()
    ]
    return columns(["candidate", "precision@20", "recall@20", "ndcg@20"], rows)


def _comparison(report: TrainingReport) -> str:
    """Return what won by how much, and why the best figure was not taken where it was not."""
    candidates, kept = report.findings["candidates"], report.findings["kept"]
    gain = candidates[kept]["ndcg"] - candidates.get("closed form", candidates[kept])["ndcg"]
    note = f"Kept: {kept}"
    if kept != "closed form" and "closed form" in candidates:
        note += f", NDCG@20 {gain:+.4f} against the closed form on the frozen encoder"
    if report.recipe.max_steps is not None and report.kept_epoch:
        note += " (--max-steps keeps the last epoch, better or not)"
    elif max(candidates.values(), key=lambda figures: figures["ndcg"]) is not candidates[kept]:
        note += ". A head is kept only where it gains 0.5 %: rows in closed form can be updated one by one"
    return f"{note}.\nLink from scores to probabilities: {report.findings['link']}."
