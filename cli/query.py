"""``fllm-export query``: the best users for item texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.options import DIRECTORY, encoder_option, engine_option, threads_option
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.errors import UsageError

if TYPE_CHECKING:
    from fllm_export.engines.names import Mode
    from fllm_export.runtime.topk import TopK

_HEADING = 120


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.argument("texts", nargs=-1)
@click.option("--file", type=click.Path(path_type=Path), help="Item texts from a file instead.")
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Users an item.")
@click.option(
    "--mode",
    type=click.Choice(["topk", "sample"]),
    default="topk",
    show_default=True,
    help="The best K users, or K users sampled from the distribution without replacement.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of `sample`.")
@click.option("--budget-ms", type=float, help="Wall time for the call; an answer cut short says so.")
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def query(
    output: Output,
    bundle: Path,
    texts: tuple[str, ...],
    file: Path | None,
    k: int,
    mode: Mode,
    seed: int,
    budget_ms: float | None,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Print the top users of each of TEXTS with their probabilities."""
    from fllm_export.item_texts import ItemTexts
    from fllm_export.runtime.runtime import Runtime

    if bool(texts) == (file is not None):
        raise UsageError(
            "both texts and --file were given" if texts else "no item text was given",
            expected="texts as arguments, or --file with a file of them",
        )
    items = list(texts) if file is None else list(ItemTexts.load(file).texts)
    answer = Runtime.open(bundle, engine=engine, encoder=encoder, threads=threads).topk(
        items, k, budget_ms=budget_ms, mode=mode, seed=seed
    )
    output.result(answer.to_dict(), "\n\n".join(_item_text(answer, i, text) for i, text in enumerate(items)))
    stages = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in answer.timings_ms.items())
    output.say(f"{len(items)} item(s): {stages}")


def _item_text(answer: TopK, item: int, text: str) -> str:
    users = answer.to_dict()["items"][item]["users"]
    rows = [
        [str(rank), str(user["user_id"]), f"{math.exp(user['log_prob']):.5f}", f"{user['score']:.4f}"]
        for rank, user in enumerate(users, 1)
    ]
    heading = text if len(text) <= _HEADING else text[: _HEADING - 3] + "..."
    lines = [heading, columns(["rank", "user", "probability", "score"], rows, left=0)]
    if not answer.complete[item]:
        lines.append(f"cut short by the budget: {answer.coverage[item]:.1%} of the users were scored")
    return "\n".join(lines)
