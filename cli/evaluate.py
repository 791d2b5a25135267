"""``fllm-export evaluate``: how good checkpoints and bundles are on cold items, beside simple baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.dataset import open_dataset
from fllm_export.cli.evaluated_loop import check_options, evaluate_with_recommender
from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.coldstart.names import MODEL_NAMES, PROTOCOLS, ModelName, Protocol

if TYPE_CHECKING:
    from fllm_export.evaluation.dataset import Dataset
    from fllm_export.evaluation.evaluation import Evaluation
    from fllm_export.evaluation.measurement import Measurement

_UNKNOWN = "-"


@click.command()
@click.argument("models", metavar="MODEL...", type=DIRECTORY, nargs=-1, required=True)
@click.argument("dataset", type=DIRECTORY)
@click.option(
    "--split",
    type=click.Choice(["cold_test", "cold_val", "cold"]),
    default="cold_test",
    show_default=True,
    help="Cold items to rank; `cold` is both splits together.",
)
@click.option("-k", "--k", type=int, default=20, show_default=True, help="Length of the ranked lists.")
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Fit simple baselines on the training pairs and measure them too.",
)
@click.option(
    "--checkpoint",
    type=DIRECTORY,
    help="Checkpoint whose base encoder gives the text vectors of the baselines, controls and content models. "
    "Without it: the first checkpoint among the models.",
)
@click.option(
    "--recommender",
    type=click.Choice(MODEL_NAMES),
    help="Train this recommender on warm items, give cold items vectors by the likely users of each MODEL, and measure "
    "what the recommender then ranks.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="b",
    show_default=True,
    help="With --recommender: what is left out of a user's list. a: items that the user was trained on. b: all items "
    "that the user is known to like and that are not tested.",
)
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="With --recommender: trainings.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("loop"),
    show_default=True,
    help="With --recommender: directory of the trained recommenders. The same command continues an interrupted one.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write tables, charts and examples to this HTML file.",
)
@json_option
@pass_output
def evaluate(
    output: Output,
    models: tuple[Path, ...],
    dataset: Path,
    split: str,
    k: int,
    baselines: bool,
    checkpoint: Path | None,
    recommender: ModelName | None,
    protocol: Protocol,
    seeds: int,
    out: Path,
    report: Path | None,
) -> None:
    """Evaluate each MODEL, a checkpoint or a bundle, on the cold items of DATASET.

    It measures two rankings: the users of each item (precision, recall and NDCG, averaged over the items), and the cold
    items of each user (recall and NDCG, averaged over the users). In the second ranking, A masks the items that the
    user was trained on. B masks every other item that the user is known to like.

    Baselines that read texts need a checkpoint, because a bundle has no base encoder. They take minutes on the CPU:
    every training item is encoded.

    With --recommender it measures the cold-start loop instead: how good the recommender is on all items, on cold and on
    warm ones, beside controls whose likely users come from elsewhere, and beside DropoutNet and CLCRec, which take
    minutes per seed.
    """
    check_options(recommender)
    if recommender is not None:
        given = dict(zip(_names(models), models, strict=True))
        loop = {"protocol": protocol, "k": k, "texts": checkpoint}
        evaluate_with_recommender(output, given, dataset, recommender, report=report, out=out, seeds=seeds, **loop)
        return
    from fllm_export.evaluation import evaluation

    data = open_dataset(output, dataset)
    found = evaluation.evaluate(
        models[0],
        data,
        split,
        k,
        output.progress,
        beside=models[1:],
        baselines=baselines,
        texts=checkpoint,
        names=_names(models),
    )
    if baselines and found.text_vectors is None:
        output.say("left out: the baselines that read texts, which need a checkpoint (--checkpoint)")
    if report is not None:
        _write_page(report, models[0], dataset, data, found)
    text = _table(found) if report is None else f"{_table(found)}\nReport: {report}"
    output.result({"model": str(models[0]), "users_left_out": data.left_out, **found.to_json()}, text)


def _write_page(report: Path, model: Path, folder: Path, data: Dataset, found: Evaluation) -> None:
    from fllm_export.evaluation.examples import examples
    from fllm_export.evaluation.quality_page import quality_page
    from fllm_export.files import publish_text

    setting = {
        "data set": folder.resolve().name,
        "split": f"{found.split}, {len(found.cold.items):,} items",
        "users": f"{len(data.user_ids):,}",
        "training pairs": f"{len(data.splits['train']):,}",
    }
    title = f"Quality of {model.resolve().name} on {folder.resolve().name}"
    publish_text(report, quality_page(title, setting, found, examples(found, data)))


def _names(models: Sequence[Path]) -> list[str]:
    """Return the names of the directories where they differ, otherwise their paths."""
    names = [model.resolve().name for model in models]
    return names if len(set(names)) == len(names) else [str(model) for model in models]


def _table(found: Evaluation) -> str:
    users, k = found.users_of_items, found.k
    header = [found.split, f"precision@{k}", f"recall@{k}", f"ndcg@{k}"]
    for name in found.items_of_users:
        header += [f"{name} recall", f"{name} ndcg"]
    table = columns([*header, "nll", "error"], [_row(method) for method in found.methods()])
    some = next(iter(found.items_of_users.values())).lists
    notes = [
        f"precision, recall, ndcg: users of {users.lists:,} items, of {found.cold.user_count:,} users.",
        f"A, B: items of {some:,} users, of {found.candidates:,} cold items. "
        "A masks the items that a user was trained on, B every other item that the user is known to like.",
    ]
    if found.likelihood is not None:
        notes.append(
            "nll: mean of -ln p(user | item) over the cold pairs; "
            f"equal probabilities give {found.likelihood.uniform:.3f}. error: calibration error, from 0 to 1."
        )
    return f"{table}\n\n" + "\n".join(notes)


def _row(method: Measurement) -> list[str]:
    users, likelihood = method.users_of_items, method.likelihood
    figures = [users.precision, users.recall, users.ndcg]
    for ranking in method.items_of_users.values():
        figures += [ranking.recall, ranking.ndcg]
    fit = [_UNKNOWN, _UNKNOWN]
    if likelihood is not None:
        fit = [f"{likelihood.per_pair:.3f}", f"{likelihood.calibration_error:.3f}"]
    return [method.name, *(f"{figure:.4f}" for figure in figures), *fit]
