"""``fllm-export query``: the best users for item texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from fllm_export.cli.asked import open_asked
from fllm_export.cli.options import (
    DIRECTORY,
    encoder_option,
    engine_option,
    exact_option,
    log_probs_option,
    mode_option,
    operating_point_option,
    refine_option,
    threads_option,
)
from fllm_export.cli.output import Output, columns, json_option, pass_output
from fllm_export.counted import counted
from fllm_export.engines.names import LogProbs, Mode

_HEADING = 120


@click.command()
@click.argument("source", type=DIRECTORY)
@click.argument("texts", nargs=-1)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Item texts from a file (see build --calibration); for a table, item vectors (see users create).",
)
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Users per item.")
@mode_option
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of `sample`.")
@click.option("--budget-ms", type=float, help="Budget of the call in milliseconds. An incomplete answer is marked.")
@exact_option
@log_probs_option
@refine_option
@operating_point_option
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def query(
    output: Output,
    source: Path,
    texts: tuple[str, ...],
    file: Path | None,
    k: int,
    mode: Mode,
    seed: int,
    budget_ms: float | None,
    exact: bool | None,
    log_probs: LogProbs | None,
    refine: int | None,
    operating_point: Path | None,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Print the top users for each of TEXTS, with their probabilities.

    SOURCE is a bundle or a user table. A user table takes no TEXTS: it needs item vectors in `--file`.
    """
    asked = open_asked(
        source, texts, file, engine=engine, encoder=encoder, threads=threads, operating_point=operating_point
    )
    answer = asked.answers.topk(
        asked.items,
        k,
        budget_ms=asked.budget_ms if budget_ms is None else budget_ms,
        mode=mode,
        seed=seed,
        exact=exact,
        log_probs=log_probs,
        refine=refine,
    )
    found = answer.to_dict()
    texts_found = [_item_text(name, item) for name, item in zip(asked.names, found["items"], strict=True)]
    if asked.point is not None and asked.point.log_probs == "none" and log_probs is None:
        texts_found.append(
            f"{operating_point} was measured without log-probabilities, so no probability is computed. "
            "To get them, set --log-probs to estimate or exact."
        )
    output.result(found, "\n\n".join(texts_found))
    stages = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in answer.timings_ms.items())
    output.say(f"{counted(len(asked.names), 'item')}: {stages}")


def _item_text(name: str, found: dict[str, Any]) -> str:
    rows = [
        [str(rank), str(user["user_id"]), _probability(user["log_prob"]), f"{user['score']:.4f}"]
        for rank, user in enumerate(found["users"], 1)
    ]
    heading = name if len(name) <= _HEADING else name[: _HEADING - 3] + "..."
    probability = "probability" if found["log_probs_exact"] or found["logsumexp"] is None else "probability (estimate)"
    lines = [heading, columns(["rank", "user", probability, "score"], rows, left=0)]
    if found["log_prob_error"] is not None and not found["log_probs_exact"]:
        likely = "" if found["log_probs_certified"] else ", with a probability of 95%"
        lines.append(f"log-probabilities are off by at most {found['log_prob_error']:.2g}{likely}")
    if not found["complete"]:
        lines.append(f"cut short by the budget: {found['coverage']:.1%} of the users were scored")
    return "\n".join(lines)


def _probability(log_prob: float | None) -> str:
    return "-" if log_prob is None else f"{math.exp(log_prob):.5f}"
