"""Recall of user tables whose rows are rounded to the nearest or by data: as stored, smoothed, rotated, by directions.

    python benchmarks/rounding.py CHECKPOINT DATASET [--states STATES] [--quant int2 ...] [--dim N ...]

CHECKPOINT is a trained checkpoint and DATASET a directory with items.parquet and interactions.parquet. STATES is a
NumPy file with the features of all items in the order of the data set, [items, h]; without it they are encoded, which
takes minutes. Item vectors are measured on the items of `train` and `cold_val`, and recall@100 against the checkpoint's
own fp32 rows is that of 800 items of `cold_test`. Prints a JSON line per table; bytes per row include the scale.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export import Checkpoint
from fllm_export.calibration.directions import BALANCE, FEEDBACK_BALANCE, SEED, Directions, cut, rotation
from fllm_export.calibration.feedback import Feedback
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.transform import Transform
from fllm_export.checkpoint.adapted import load_unmerged
from fllm_export.evaluation.dataset import Dataset
from fllm_export.table.codecs import codec
from fllm_export.table.rounding import Rounding, nearest

K, ASKED, CHUNK = 100, 800, 4096

F32 = npt.NDArray[np.float32]


class Study:
    """Rows and biases of a checkpoint, the items that are asked, and what the other items say."""

    def __init__(self, checkpoint: Checkpoint, dataset: Dataset, z: F32) -> None:
        users = load_unmerged(checkpoint).users
        known = dataset.pairs("train", "cold_val").distinct_items
        self.rows = np.concatenate(list(users.chunks()))
        self.bias = np.zeros(users.rows, np.float32) if users.bias is None else users.bias
        self.asked = z[dataset.splits["cold_test"].distinct_items[:ASKED]]
        items = Moments.of(z[known[at : at + CHUNK]] for at in range(0, len(known), CHUNK))
        self.metric = items.metric()
        of_rows = Moments.of([self.rows])
        self.directions, self.smoothing = Directions.of(items, of_rows), smoothing(items, of_rows)
        self.best = self.top(self.rows, self.asked)

    def top(self, rows: F32, z: F32) -> npt.NDArray[np.int64]:
        """Return the K best users of each item, in any order."""
        return np.argpartition(z @ rows.T + self.bias, -K, 1)[:, -K:]

    def measure(self, case: str, quant: str, transform: Transform | None, rounding: Rounding) -> None:
        """Store the rows, and print the recall of what is stored."""
        rows = self.rows if transform is None else transform.rows(self.rows)
        z = self.asked if transform is None else transform.item_vectors(self.asked)
        kind, dim, began = codec(quant), rows.shape[1], time.monotonic()
        stored = kind.encode(rows, rounding)
        seconds = time.monotonic() - began
        found = self.top(kind.decode(stored, dim), z)
        shared = sum(len(np.intersect1d(a, b)) for a, b in zip(self.best, found, strict=True))
        record(
            case,
            quant=quant,
            dim=dim,
            bytes_per_row=kind.row_bytes(dim),
            recall=round(shared / self.best.size, 4),
            encode_s=round(seconds, 1),
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--states", type=Path)
    parser.add_argument("--quant", nargs="+", default=["int8", "int4", "int4row", "int2"])
    parser.add_argument("--dim", nargs="+", type=int, default=[])
    options = parser.parse_args()
    checkpoint, dataset = Checkpoint.load(options.checkpoint), Dataset.load(options.dataset)
    study = Study(checkpoint, dataset, item_vectors(checkpoint, dataset, options.states))
    whole = study.rows.shape[1]
    for quant in options.quant:
        study.measure("nearest", quant, None, nearest)
        study.measure("rotated, nearest", quant, rotation(whole, SEED), nearest)
        study.measure("data without transform", quant, None, Feedback(study.metric))
        study.measure("smoothed, nearest", quant, study.smoothing, nearest)
        study.measure("smoothed, rotated, nearest", quant, study.smoothing.then(rotation(whole, SEED)), nearest)
        for dim in options.dim or [whole]:
            study.measure("directions, nearest", quant, cut(study.directions, dim, quant, BALANCE), nearest)
            for balance in (BALANCE, FEEDBACK_BALANCE, 1.0):
                turned = cut(study.directions, dim, quant, balance)
                rule = Feedback(turned.items @ study.metric @ turned.items.T)
                study.measure(f"directions, balance {balance:g}, data", quant, turned, rule)


def smoothing(items: Moments, rows: Moments) -> Transform:
    """Return the map that makes each dimension as large in rows as in item vectors, by their root mean squares.

    That is the best division of sizes along the dimensions as they are, as `Directions.transform` with a balance of 1/2
    is along the directions.
    """
    sizes = [np.sqrt(np.maximum(moments.second.diagonal(), np.finfo(np.float32).tiny)) for moments in (items, rows)]
    factors = np.sqrt(sizes[1] / sizes[0])
    return Transform(np.diag(factors), np.diag(1 / factors))


def item_vectors(checkpoint: Checkpoint, dataset: Dataset, states: Path | None) -> F32:
    """Return the item vectors of all items, float32 [items, d]."""
    if states is None:
        return load_unmerged(checkpoint).item_vectors(dataset.texts)
    x = np.load(states)
    mapped = [checkpoint.mapper.apply(checkpoint.features.apply(x[at : at + CHUNK])) for at in range(0, len(x), CHUNK)]
    return np.concatenate(mapped)


def record(case: str, **values: Any) -> None:
    """Print a measurement as a JSON line."""
    print(json.dumps({"benchmark": "rounding", "case": case, **values}), flush=True)


if __name__ == "__main__":
    main()
