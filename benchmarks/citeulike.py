"""Cold-start quality on CiteULike-a: training, evaluation and every codec, each beside its yardstick of the same run.

    python benchmarks/citeulike.py DATASET WORK [--epochs N]

DATASET is a directory with items.parquet and interactions.parquet; WORK keeps checkpoints and bundles, and what is
there already is not made again. Prints one JSON line a measurement, then the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fllm_export import build
from fllm_export.cli.output import Output, columns
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.evaluation import evaluate
from fllm_export.evaluation.metrics import Ranking
from fllm_export.evaluation.ranker import open_ranker
from fllm_export.table.codec_names import CODEC_NAMES
from fllm_export.training.recipe import Recipe
from fllm_export.training.trainer import train

K = 20
PUBLISHED = ("ColdLLM's public pairs, cold_val and cold_test", 0.1083, 0.2091)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    options = parser.parse_args()
    dataset = Dataset.load(options.dataset)
    rows = [["most active users, cold_test", *most_active(dataset)]]
    for name, recipe in {
        "linear mapper, encoder frozen": replace(Recipe(), epochs=0),
        "FilterLLM": replace(Recipe(), epochs=options.epochs),
    }.items():
        path = options.work / f"epochs-{recipe.epochs}"
        train_once(dataset, path, recipe)
        rows += [[f"{name}, {split}", *quality(path, dataset, split)] for split in ("cold_test", "cold")]
    rows.append([PUBLISHED[0], f"{PUBLISHED[1]:.4f}", f"{PUBLISHED[2]:.4f}"])
    codecs = [codec_row(path, options, dataset, quant) for quant in CODEC_NAMES]
    print("\n" + columns(["users of cold items", f"precision@{K}", f"recall@{K}"], rows))
    header = ["codec", "table bytes", "recall@10", "recall@100", f"precision@{K}", f"recall@{K}"]
    print("\n" + columns(header, codecs))


def record(case: str, **values: Any) -> None:
    """Print a measurement as a JSON line."""
    print(json.dumps({"benchmark": "citeulike", "case": case, **values}), flush=True)


def most_active(dataset: Dataset) -> list[str]:
    """Return precision and recall of answering every item with the users that have most training pairs."""
    pairs = dataset.splits["cold_test"]
    items = pairs.distinct_items
    counts = np.bincount(dataset.splits["train"].users, minlength=len(dataset.user_ids))
    best = np.argsort(-counts, kind="stable")[:K]
    ranking = Ranking.of(np.tile(best, (len(items), 1)), pairs.users_of(items))
    record("most active users", split="cold_test", precision=ranking.precision, recall=ranking.recall)
    return [f"{ranking.precision:.4f}", f"{ranking.recall:.4f}"]


def train_once(dataset: Dataset, path: Path, recipe: Recipe) -> None:
    """Train, unless the checkpoint is there."""
    if (path / "filterllm.json").exists():
        return
    began = time.monotonic()
    report = train(dataset, path, recipe, progress=Output().progress)
    seconds = round(time.monotonic() - began)
    record("train", epochs=recipe.epochs, kept_epoch=report.kept_epoch, seconds=seconds)


def quality(path: Path, dataset: Dataset, split: str) -> list[str]:
    """Return user precision and recall of a checkpoint or bundle."""
    found = evaluate(open_ranker(path), dataset, split, K, baselines=False)
    record("evaluate", model=path.name, **found.to_json())
    return [f"{found.users_of_items.precision:.4f}", f"{found.users_of_items.recall:.4f}"]


def codec_row(checkpoint: Path, options: argparse.Namespace, dataset: Dataset, quant: str) -> list[str]:
    """Build one bundle and return its row: the ranking against fp32, and what is left of the quality."""
    texts = options.dataset / "items.parquet"
    bundle = build(checkpoint, options.work / f"bundle-{quant}", calibration=texts, quant=quant, min_recall=0.0)
    parity = bundle.parity()
    size = sum(shard.bytes for shard in bundle.table().layout.shards)
    record("codec", codec=quant, table_bytes=size, parity=parity.to_dict())
    recalls = [f"{parity.recall[depth]:.4f}" for depth in (10, 100)]
    return [quant, f"{size:,}", *recalls, *quality(bundle.path, dataset, "cold_test")]


if __name__ == "__main__":
    main()
