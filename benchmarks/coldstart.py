"""The online flow of a new item: text, likely users among all, selection, update, pushed vector, committed row.

    python -m benchmarks.coldstart BUNDLE ITEMS WORK --users 1000000 [--quant int8] [--texts 100]

BUNDLE gives the encoder. ITEMS is a file of item texts. The user table and the recommender are synthetic: users are
drawn like those of CiteULike-a (``benchmarks/native/profile.py``) from topics of the encoder's own vectors of ITEMS, so
that searches meet the rows that they would meet. WORK keeps them; what is there already is not made again. Prints a
JSON line per measurement, then the table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.native import machine
from benchmarks.native.profile import Profile
from fllm_export import Runtime, UserTable
from fllm_export.cli.output import columns
from fllm_export.coldstart import Onboarder, OnboardOptions, Vectors, open_index
from fllm_export.coldstart.new_items import Batch, NewItem
from fllm_export.coldstart.onboard_journal import OnboardJournal
from fllm_export.coldstart.onboard_options import METHODS
from fllm_export.item_texts import ItemTexts

F32 = npt.NDArray[np.float32]

_CHUNK = 65_536
_SPACE = 64
_ITEMS = 20_000
_TOPIC_TEXTS = 1_500
_BATCH = 64
_SEED = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("items", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--quant", default="int8")
    parser.add_argument("--texts", type=int, default=100, help="items that are timed")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    texts, others = ItemTexts.load(options.items).split(options.texts + 1, _SEED)
    folder = options.work / f"{options.quant}-{options.users}"
    if not (folder / "users" / "table.json").exists():
        make(options.bundle, folder, others[:_TOPIC_TEXTS], options.users, options.quant)
    runtime = Runtime.open(folder, threads=options.threads)
    recommender = opened_recommender(folder, options.users)
    record("machine", **machine.describe())
    rows = online(runtime, recommender, texts, folder / "out") + updates(runtime.users, recommender)
    print("\n" + columns(["stage", "p50 ms", "p99 ms"], rows))


def record(case: str, **values: Any) -> None:
    """Print a measurement as a JSON line."""
    print(json.dumps({"benchmark": "coldstart", "case": case, **values}), flush=True)


def make(bundle: Path, folder: Path, texts: list[str], users: int, quant: str) -> None:
    """Write a bundle with the encoder of another, and a table and a recommender of synthetic users."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    for name in ("manifest.json", "tokenizer.json", "encoder"):
        (folder / name).symlink_to((bundle / name).resolve())
    real = Runtime.open(bundle)
    z = real.encode(texts)
    table = np.concatenate([rows for _, rows in real.users.decoded()])
    profile = Profile.of_items(z, Profile.load("citeulike-a").taste)
    # The profile's coordinates are the principal directions of the items.
    axes = np.linalg.eigh(z.astype(np.float64).T @ z)[1][:, ::-1]
    back = np.ascontiguousarray(axes.T, np.float32)
    sample = profile.users(np.random.default_rng(0), 4096, z.shape[1]) @ back
    profile = replace(profile, scale=float((z @ table.T).std() / (z @ sample.T).std()))
    space = np.lib.format.open_memmap(folder / "space.npy", "w+", np.float32, (users, _SPACE))
    projection = np.random.default_rng(_SEED).standard_normal((z.shape[1], _SPACE)).astype(np.float32)
    projection *= np.float32(1 / np.sqrt(z.shape[1]) / sample.std())

    def chunks() -> Iterator[F32]:
        for number, first in enumerate(range(0, users, _CHUNK)):
            count = min(_CHUNK, users - first)
            rows = profile.users(np.random.default_rng([_SEED, number]), count, z.shape[1]) @ back
            space[first : first + count] = rows @ projection
            yield rows

    UserTable.create(folder / "users", chunks(), items=z[:256], quant=quant)
    space.flush()
    size = sum(file.stat().st_size for file in (folder / "users").iterdir())
    record("made", users=users, quant=quant, table_bytes=size, seconds=round(time.monotonic() - began, 1))


def opened_recommender(folder: Path, users: int) -> Vectors:
    """Return the recommender: users that are mapped in place, and items drawn beside them."""
    space = np.load(folder / "space.npy", mmap_mode="r")
    generator = np.random.default_rng(_SEED)
    near = np.sort(generator.choice(users, min(users, 4096), replace=False))
    mixed = np.stack([space[near[generator.integers(0, len(near), 8)]].mean(0) for _ in range(_ITEMS)])
    return Vectors(np.arange(users), space, np.arange(_ITEMS), mixed)


def online(runtime: Runtime, recommender: Vectors, texts: list[str], out: Path) -> list[list[str]]:
    """Time items one by one, from the text to the committed row."""
    began = time.monotonic()
    onboarder = Onboarder(runtime, recommender, OnboardOptions())
    record("prepared", seconds=round(time.monotonic() - began, 2))
    index = open_index(out.with_suffix(".faiss"), recommender.item_ids, recommender.items)
    stages: dict[str, list[float]] = {}
    shutil.rmtree(out, ignore_errors=True)
    with OnboardJournal(out, {}) as journal:
        for number, text in enumerate(texts):
            item = NewItem.of({"item_id": _ITEMS + number, "text": text}, "text")
            began = time.perf_counter()
            rows = onboarder.onboard([text], [item.item_id])
            done = time.perf_counter()
            index.push(rows.item_ids, rows.vectors)
            pushed = time.perf_counter()
            journal.commit(Batch([item], number, number + 1), [(item, 1)], rows)
            committed = time.perf_counter()
            if number == 0:
                continue  # the first call warms up
            times = {**rows.timings_ms, "push": (pushed - done) * 1e3, "end to end, pushed": (pushed - began) * 1e3}
            times |= {"commit": (committed - pushed) * 1e3, "end to end, committed": (committed - began) * 1e3}
            for name, ms in times.items():
                stages.setdefault(name, []).append(ms)
            # Beside it: the same users with probabilities among all users, for which every row is read.
            z = runtime.encode([text])
            began = time.perf_counter()
            runtime.users.topk(z, 20, log_probs="exact")
            stages.setdefault("select with p over all users", []).append((time.perf_counter() - began) * 1e3)
    return [row(name, ms) for name, ms in stages.items()]


def updates(table: UserTable, recommender: Vectors) -> list[list[str]]:
    """Time selection and update of batches, per item, with every method."""
    z = next(rows for _, rows in table.decoded())[:_BATCH]
    found = []
    for method in METHODS:
        onboarder = Onboarder(table, recommender, OnboardOptions(method=method))
        for batch in (1, _BATCH):
            times = repeated(lambda batch=batch, onboarder=onboarder: onboarder.onboard(z[:batch]).timings_ms["update"])
            found.append(row(f"update by {method}, batch {batch}, per item", [ms / batch for ms in times]))
    return found


def repeated(call: Callable[[], float], runs: int = 30) -> list[float]:
    """Return what a call says, run by run, after one that does not count."""
    return [call() for _ in range(runs + 1)][1:]


def row(stage: str, ms: list[float]) -> list[str]:
    """Print a stage and return its row."""
    p50, p99 = np.percentile(ms, [50, 99]).tolist()
    record("stage", stage=stage, p50_ms=round(p50, 4), p99_ms=round(p99, 4), runs=len(ms))
    return [stage, f"{p50:.3f}", f"{p99:.3f}"]


if __name__ == "__main__":
    main()
