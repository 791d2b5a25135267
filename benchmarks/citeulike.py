"""Cold-start quality on CiteULike-a: three ways of training beside the baselines, then every codec of the second.

    python benchmarks/citeulike.py DATASET WORK [--epochs N]

DATASET is a directory with items.parquet and interactions.parquet; WORK keeps checkpoints and bundles, and what is
there already is not made again. Prints one JSON line a measurement, then the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from fllm_export import build
from fllm_export.cli.output import Output, columns
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.evaluation import evaluate
from fllm_export.evaluation.measurement import Measurement
from fllm_export.evaluation.ranker import open_ranker
from fllm_export.table.codec_names import CODEC_NAMES
from fllm_export.training.recipe import ClosedFormRecipe, Recipe, SoftmaxRecipe
from fllm_export.training.trainer import train

K = 20
PUBLISHED = ("ColdLLM's public pairs, cold_val and cold_test", 0.1083, 0.2091)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=ClosedFormRecipe().epochs, help="LoRA epochs")
    options = parser.parse_args()
    dataset = Dataset.load(options.dataset)
    recipes = {
        "closed form": ClosedFormRecipe(epochs=0),
        "closed form + LoRA": ClosedFormRecipe(epochs=options.epochs),
        "published recipe": SoftmaxRecipe(epochs=options.epochs),
    }
    paths = {name: options.work / f"{recipe.vocabulary}-{recipe.epochs}" for name, recipe in recipes.items()}
    for name, recipe in recipes.items():
        train_once(dataset, paths[name], name, recipe)
    rows = [row for split in ("cold_test", "cold") for row in quality(dataset, paths, split)]
    rows.append([PUBLISHED[0], f"{PUBLISHED[1]:.4f}", f"{PUBLISHED[2]:.4f}", "-"])
    print("\n" + columns(["users of cold items", f"precision@{K}", f"recall@{K}", f"ndcg@{K}"], rows))
    codecs = [codec_row(paths["closed form + LoRA"], options, dataset, quant) for quant in CODEC_NAMES]
    header = ["codec", "table bytes", "recall@10", "recall@100", f"precision@{K}", f"recall@{K}", f"ndcg@{K}"]
    print("\n" + columns(header, codecs))


def record(case: str, **values: Any) -> None:
    """Print a measurement as a JSON line."""
    print(json.dumps({"benchmark": "citeulike", "case": case, **values}), flush=True)


def train_once(dataset: Dataset, path: Path, name: str, recipe: Recipe) -> None:
    """Train, unless the checkpoint is there."""
    if (path / "filterllm.json").exists():
        return
    began = time.monotonic()
    report = train(dataset, path, recipe, progress=Output().progress)
    seconds = round(time.monotonic() - began)
    record("train", name=name, kept_epoch=report.kept_epoch, seconds=seconds, findings=report.findings)


def quality(dataset: Dataset, paths: dict[str, Path], split: str) -> list[list[str]]:
    """Return a row for each checkpoint and each baseline; the baselines' text vectors are of the frozen encoder."""
    first, *beside = (open_ranker(path) for path in paths.values())
    found = evaluate(first, dataset, split, K, beside=beside, names=list(paths), progress=Output().progress)
    record("evaluate", **found.to_json())
    return [[f"{method.name}, {split}", *figures(method)] for method in found.methods()]


def figures(method: Measurement) -> list[str]:
    """Return user precision, recall and NDCG."""
    ranking = method.users_of_items
    return [f"{value:.4f}" for value in (ranking.precision, ranking.recall, ranking.ndcg)]


def codec_row(checkpoint: Path, options: argparse.Namespace, dataset: Dataset, quant: str) -> list[str]:
    """Build one bundle and return its row: the ranking against fp32, and what is left of the quality."""
    texts = options.dataset / "items.parquet"
    bundle = build(checkpoint, options.work / f"bundle-{quant}", calibration=texts, quant=quant, min_recall=0.0)
    parity = bundle.parity()
    size = sum(shard.bytes for shard in bundle.table().layout.shards)
    record("codec", codec=quant, table_bytes=size, parity=parity.to_dict())
    recalls = [f"{parity.recall[depth]:.4f}" for depth in (10, 100)]
    found = evaluate(open_ranker(bundle.path), dataset, "cold_test", K, baselines=False)
    record("evaluate", model=bundle.path.name, **found.to_json())
    return [quant, f"{size:,}", *recalls, *figures(found.models[0])]


if __name__ == "__main__":
    main()
