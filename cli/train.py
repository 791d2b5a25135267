"""``fllm-export train``: from item texts and interactions to a checkpoint."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.dataset import open_dataset
from fllm_export.cli.options import DIRECTORY, threads_option
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.errors import HardwareError

if TYPE_CHECKING:
    from fllm_export.checkpoint.spec import MapperKind
    from fllm_export.training.trainer import TrainingReport


@click.command()
@click.argument("dataset", type=DIRECTORY)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the new checkpoint.")
@click.option(
    "--encoder",
    default="minilm",
    show_default=True,
    help="minilm, mpnet, smollm2, or a local directory of sentence-transformers or Hugging Face.",
)
@click.option("--dim", type=int, default=256, show_default=True, help="Dimension of a user row.")
@click.option(
    "--mapper",
    type=click.Choice(["linear", "linear_relu", "mlp"]),
    default="linear",
    show_default=True,
    help="What maps the encoder's hidden state to the item vector.",
)
@click.option("--guidance", type=float, default=10.0, show_default=True, help="Weight lambda of the guidance loss.")
@click.option(
    "--max-length",
    type=int,
    default=128,
    show_default=True,
    help="Maximum number of tokens per prompt; the encoder's own limit can be lower.",
)
@click.option("--epochs", type=int, default=3, show_default=True, help="LoRA epochs; 0 keeps the encoder frozen.")
@click.option(
    "--max-steps", type=int, help="Maximum number of LoRA steps, for a short run on the items of those steps."
)
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of all random numbers.")
@click.option("--strict", is_flag=True, help="Refuse users without a training pair, instead of leaving them out.")
@threads_option
@json_option
@pass_output
def train(
    output: Output,
    dataset: Path,
    out: Path,
    encoder: str,
    dim: int,
    mapper: MapperKind,
    guidance: float,
    max_length: int,
    epochs: int,
    max_steps: int | None,
    seed: int,
    strict: bool,
    threads: int | None,
) -> None:
    """Train a FilterLLM on DATASET, a directory of two files.

    items.parquet has the columns item_id and text. interactions.parquet has the columns user_id, item_id and split.
    Both can also be .csv, .tsv or .jsonl. Users without a training pair are left out.

    After an interruption, run the same command again. It continues after the last complete epoch.
    """
    for package in ("torch", "transformers", "peft", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            raise HardwareError(f"{package} is not installed", fix="Run pip install 'fllm-export[train]'")
    import torch

    from fllm_export.environment import thread_count
    from fllm_export.training import trainer
    from fllm_export.training.recipe import Recipe

    recipe = Recipe(
        seed=seed,
        dim=dim,
        mapper=mapper,
        guidance=guidance,
        max_length=max_length,
        epochs=epochs,
        max_steps=max_steps,
    )
    torch.set_num_threads(thread_count(threads))
    data = open_dataset(output, dataset, strict=strict)
    report = trainer.train(data, out, recipe, encoder=encoder, progress=output.progress)
    result = {"checkpoint": str(out), "users_left_out": data.left_out, **report.to_json()}
    output.result(result, _table(report, out))


def _table(report: TrainingReport, out: Path) -> str:
    rows = [
        [
            f"{record.epoch}" + (" (kept)" if record.epoch == report.kept_epoch else ""),
            f"{record.loss:.4f}",
            f"{record.precision:.4f}",
            f"{record.recall:.4f}",
            f"{record.seconds:.0f}",
        ]
        for record in report.epochs
    ]
    table = columns(["epoch", "loss", "precision@20", "recall@20", "seconds"], rows)
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    note = "Users of the items of cold_val; epoch 0 is the warm-up on the frozen encoder."
    if report.kept_epoch == 0 and len(report.epochs) > 1:
        note += "\nNo LoRA epoch ranked better than the frozen encoder, so the adapter that is kept changes nothing."
    return f"{table}\n\n{note}\nEarlier stages: {stages}.\nCheckpoint: {out}"
