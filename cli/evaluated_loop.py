"""What ``evaluate --recommender`` does: the cold-start loop through a recommender that is trained for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fllm_export.cli.dataset import open_dataset
from fllm_export.cli.output import Output, columns
from fllm_export.coldstart.names import ModelName, Protocol
from fllm_export.errors import HardwareError, UsageError

if TYPE_CHECKING:
    from fllm_export.coldstart.loop_result import LoopResult
    from fllm_export.evaluation.dataset import Dataset

_OF_THE_LOOP = ("protocol", "seeds", "out")
_OF_ITEMS_ALONE = ("split", "baselines")
_MASKED: dict[Protocol, str] = {"a": "the pairs of train", "b": "all known pairs that are not tested"}


def check_options(recommender: str | None) -> None:
    """Refuse options of the current command that have no effect with, or without, ``--recommender``.

    Raises:
        UsageError: one was given on the command line.
    """
    context = click.get_current_context()
    useless = _OF_THE_LOOP if recommender is None else _OF_ITEMS_ALONE
    given = [name for name in useless if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        word = "without" if recommender is None else "with"
        raise UsageError(f"--{given[0]} has no effect {word} --recommender", fix=f"Leave --{given[0]} out")


def evaluate_with_recommender(
    output: Output,
    models: Mapping[str, Path],
    dataset: Path,
    recommender: ModelName,
    *,
    report: Path | None,
    out: Path,
    seeds: int,
    **options: Any,
) -> None:
    """Evaluate and print; ``options`` are those of :func:`fllm_export.coldstart.loop_evaluation.evaluate_loop`.

    Raises:
        HardwareError: torch is not installed.
    """
    try:
        from fllm_export.coldstart.loop_evaluation import evaluate_loop, recommender_file
        from fllm_export.coldstart.recommender import BprRecommender
        from fllm_export.coldstart.recommender_options import RecommenderOptions
    except ImportError as error:
        raise HardwareError(
            f"recommenders are trained with torch: {error}", fix="Run pip install 'fllm-export[coldstart]'"
        ) from error
    data = open_dataset(output, dataset)
    trained = BprRecommender(RecommenderOptions.default(recommender))
    found = evaluate_loop(models, data, trained, out, seeds=seeds, progress=output.progress, **options)
    files = [str(recommender_file(out, found.recommender, seed)) for seed in range(found.seeds)]
    settings = trained.options.to_json()
    lines = [columns(found.header(), found.rows()), "", found.legend(), f"Recommenders: {', '.join(files)}"]
    if report is not None:
        _write_page(report, dataset, data, found, settings)
        lines.append(f"Report: {report}")
    facts = {"users_left_out": data.left_out, "options": settings, "recommender_files": files}
    output.result({**found.to_json(), **facts}, "\n".join(lines))


def _write_page(report: Path, folder: Path, data: Dataset, found: LoopResult, options: Mapping[str, Any]) -> None:
    from fllm_export.coldstart.loop_page import loop_page
    from fllm_export.files import publish_text

    setting = {
        "data set": folder.resolve().name,
        "users": f"{len(data.user_ids):,}",
        "training pairs": f"{len(data.splits['train']):,}",
        f"masked (protocol {found.protocol})": _MASKED[found.protocol],
        "recommender": ", ".join(f"{name} {value}" for name, value in options.items()),
    }
    title = f"The cold-start loop with {found.recommender} on {folder.resolve().name}"
    publish_text(report, loop_page(title, setting, found))
