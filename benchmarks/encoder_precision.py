"""What an encoder with integer weights gains in time and costs in ranking, beside the float32 one of the same bundle.

    fllm-export build CHECKPOINT --out BUNDLE --calibration ITEMS --encoder-precision int8 --min-recall 0.9
    python benchmarks/encoder_precision.py BUNDLE DATASET [--threads 1] [--rounds 60]

Calls of both encoders take turns. Processor time is given beside wall time, because other work on the machine does not
enter it. Rankings are those of ``fllm-export evaluate`` on the split cold_test. Prints one JSON line and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fllm_export import Bundle, Runtime
from fllm_export.cli.output import columns
from fllm_export.evaluation.dataset import Dataset
from fllm_export.evaluation.evaluation import evaluate

ENCODERS = ("cpu", "cpu-fp32")
BATCHES = (1, 32)
K = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    bundle, data = Bundle.load(options.bundle), Dataset.load(options.dataset)
    precision = bundle.manifest.provenance["encoder_precision"]
    names = {"cpu": precision, "cpu-fp32": "fp32"}
    times = {batch: timed(options.bundle, data.texts, batch, options.threads, options.rounds) for batch in BATCHES}
    ranked = {name: quality(options.bundle, data, name) for name in ENCODERS}
    found = {"benchmark": "encoder_precision", "precision": precision, "threads": options.threads, "ranking": ranked}
    print(json.dumps({**found, "ms": times}))
    rows = [[f"{kind} ms, {batch} text(s)", *cells(times[batch][kind])] for batch in BATCHES for kind in times[batch]]
    rows += [[metric, *cells({name: ranked[name][metric] for name in ENCODERS}, 4)] for metric in ranked["cpu"]]
    print("\n" + columns(["", *(names[name] for name in ENCODERS), "ratio"], rows))


def timed(bundle: Path, texts: tuple[str, ...], batch: int, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the medians of wall and processor milliseconds of a call, by encoder."""
    runtimes = {name: Runtime.open(bundle, encoder=name, threads=threads) for name in ENCODERS}
    clocks: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
    kept: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in ENCODERS} for kind in clocks}
    count = max(5, rounds // batch)
    chosen = np.random.default_rng(0).integers(len(texts), size=(count, batch))
    for numbers in chosen:
        asked = [texts[number] for number in numbers]
        for name, runtime in runtimes.items():
            runtime.encode(asked)
            before = {kind: clock() for kind, clock in clocks.items()}
            runtime.encode(asked)
            for kind, clock in clocks.items():
                kept[kind][name].append((clock() - before[kind]) * 1e3)
    return {kind: {name: float(np.median(values)) for name, values in one.items()} for kind, one in kept.items()}


def quality(bundle: Path, data: Dataset, encoder: str) -> dict[str, float]:
    """Return the rankings of cold items with one of the encoders and the bundle's table."""
    os.environ["FLLM_ENCODER"] = encoder
    found = evaluate(bundle, data, "cold_test", K, baselines=False)
    items = found.items_of_users
    return {
        f"users of items, NDCG@{K}": found.users_of_items.ndcg,
        **{f"items of users, {name}, NDCG@{K}": ranking.ndcg for name, ranking in items.items()},
    }


def cells(by_encoder: dict[str, float], digits: int = 2) -> list[str]:
    """Return both numbers and the first by the second."""
    mine, plain = (by_encoder[name] for name in ENCODERS)
    return [f"{mine:.{digits}f}", f"{plain:.{digits}f}", f"{mine / plain:.4f}"]


if __name__ == "__main__":
    main()
