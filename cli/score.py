"""``fllm-export score``: the users of many items, into a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fllm_export.cli.options import (
    DIRECTORY,
    encoder_for,
    encoder_option,
    engine_option,
    exact_option,
    log_probs_option,
    mode_option,
    threads_option,
)
from fllm_export.cli.output import Output, json_option, pass_output
from fllm_export.counted import counted
from fllm_export.engines.names import LogProbs, Mode
from fllm_export.errors import UsageError
from fllm_export.extras import require

if TYPE_CHECKING:
    from fllm_export.scale.scoring import Items, ScoreSource


@click.command()
@click.argument("items", type=click.Path(path_type=Path))
@click.option("--source", type=DIRECTORY, required=True, help="The bundle, or the user table, that scores.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The Parquet file to write.")
@click.option("-k", "--k", type=int, default=100, show_default=True, help="Users per item.")
@mode_option
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of `sample`; item i has the seed SEED + i.")
@click.option("--part-items", type=int, default=4096, show_default=True, help="Items per part.")
@click.option("--ray", "on_ray", is_flag=True, help="Score on the machines of a Ray cluster.")
@click.option("--ray-address", help="Address of the cluster. Default: RAY_ADDRESS, otherwise this machine.")
@click.option("--workers", type=click.IntRange(1), help="Processes on the cluster. Default: as many as fit.")
@exact_option
@log_probs_option
@engine_option
@encoder_option
@threads_option
@json_option
@pass_output
def score(
    output: Output,
    items: Path,
    source: Path,
    out: Path,
    k: int,
    mode: Mode,
    seed: int,
    part_items: int,
    on_ray: bool,
    ray_address: str | None,
    workers: int | None,
    exact: bool | None,
    log_probs: LogProbs | None,
    engine: str | None,
    encoder: str | None,
    threads: int | None,
) -> None:
    """Write the top users of all ITEMS to a Parquet file, with or without Ray.

    ITEMS is a file of item texts for a bundle (see build --calibration), or of item vectors for a user table. The
    output has one row per item, in the order of ITEMS. If you run an interrupted command again, it continues where it
    stopped. With `--ray`, all machines must reach SOURCE and the output by the same paths.
    """
    if not on_ray and (ray_address is not None or workers is not None):
        raise UsageError("--ray-address or --workers was given without --ray", expected="--ray beside them")
    jobs = require("fllm_export.scale.score_job", "ray")
    from fllm_export.scale.scoring import ScoreOptions, ScoreSource

    chosen = ScoreSource(source.absolute(), engine, encoder_for(source, encoder), threads)
    proven = True if exact is None else exact
    wanted = ScoreOptions(k, mode, seed, proven, log_probs or ("exact" if proven else "estimate"), part_items)
    job = jobs.ScoreJob(chosen, _items(items, chosen), out.absolute(), wanted)
    if on_ray:
        rays = require("fllm_export.scale.ray_scoring", "ray")
        scored = rays.score_on_ray(job, workers=workers, address=ray_address, progress=output.progress)
    else:
        scored = jobs.score_here(job, output.progress)
    count = job.facts["items"]["count"]
    facts = {"out": str(out), "items": count, "scored_now": scored, "generation": job.writer.generation}
    told = f"{counted(count, 'item')}, {counted(k, 'user')} each ({counted(scored, 'item')} scored now)"
    output.result(facts, f"{out}: {told}")


def _items(path: Path, source: ScoreSource) -> Items:
    if source.takes_texts:
        from fllm_export.item_texts import ItemTexts

        return list(ItemTexts.load(path).texts)
    from fllm_export.checkpoint.vector_files import open_vectors

    vectors = open_vectors([path])
    return vectors.read(0, vectors.rows)
