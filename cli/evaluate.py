"""``fllm-export evaluate``: how good a checkpoint or a bundle is on cold items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.dataset import open_dataset
from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, columns, json_option, pass_output

if TYPE_CHECKING:
    from fllm_export.evaluation.evaluation import Evaluation


@click.command()
@click.argument("model", type=DIRECTORY)
@click.argument("dataset", type=DIRECTORY)
@click.option(
    "--split",
    type=click.Choice(["cold_test", "cold_val", "cold"]),
    default="cold_test",
    show_default=True,
    help="Cold items to rank; `cold` is both splits together.",
)
@click.option("-k", "--k", type=int, default=20, show_default=True, help="Length of the ranked lists.")
@json_option
@pass_output
def evaluate(output: Output, model: Path, dataset: Path, split: str, k: int) -> None:
    """Evaluate MODEL, a checkpoint or a bundle, on the cold items of DATASET.

    It measures two rankings: the users of each item (precision and recall, averaged over the items), and the cold items
    of each user (recall and NDCG, averaged over the users). In the second ranking, A masks the items that the user was
    trained on. B masks every other item that the user is known to like.
    """
    from fllm_export.evaluation import evaluation
    from fllm_export.evaluation.ranker import open_ranker

    data = open_dataset(output, dataset)
    found = evaluation.evaluate(open_ranker(model), data, split, k, output.progress)
    output.result({"model": str(model), "users_left_out": data.left_out, **found.to_json()}, _table(found))


def _table(found: Evaluation) -> str:
    users, k = found.users_of_items, found.k
    rows = [[f"users of {users.lists:,} items", f"{users.precision:.4f}", f"{users.recall:.4f}", f"{users.ndcg:.4f}"]]
    rows += [
        [
            f"items of {ranking.lists:,} users, {name}",
            f"{ranking.precision:.4f}",
            f"{ranking.recall:.4f}",
            f"{ranking.ndcg:.4f}",
        ]
        for name, ranking in found.items_of_users.items()
    ]
    table = columns([found.split, f"precision@{k}", f"recall@{k}", f"ndcg@{k}"], rows)
    masks = "A masks the items that a user was trained on, B every other item that the user is known to like"
    return f"{table}\n\n{found.candidates:,} cold items are ranked per user; {masks}."
