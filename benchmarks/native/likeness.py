"""Fit a profile to a trained table, and show how far drawn users resemble the real ones.

    python -m benchmarks.native.likeness NAME CHECKPOINT DATASET [--save]

Item vectors are those of the checkpoint for the texts of DATASET's `train` items, at most 2,048 of them; the rows are
compared by the items of `cold_val`. The taste of users is chosen from a small grid, so that the facts of drawn tables
come nearest to those of the real one. With --save the profile becomes benchmarks/native/profiles/NAME.npz.

The facts, means over items: how far the best and the 100th best score lie above the mean, in standard deviations of the
scores; perplexity of the probabilities as a share of the users; the coefficient of variation of the rows' norms; and
recall@100 when rows are rounded to each integer codec.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.native.population import Population
from benchmarks.native.profile import F32, Profile, Taste
from fllm_export.checkpoint.adapted import load_unmerged
from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.cli.output import columns
from fllm_export.evaluation.dataset import Dataset
from fllm_export.table.codecs import CODECS, codec

K = 100
ASKED = 96
KNOWN = 2_048
INTERESTS = (1, 2, 3)
SHARPNESSES = (3.0, 4.0, 5.0, 6.0, 7.0)
ROUNDED = tuple(name for name in CODECS if codec(name).exact_query and name != "fp8")


def main() -> None:
    """Fit, compare, print, and save when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--save", action="store_true", help="write the profile")
    options = parser.parse_args()
    rows, known, asked, sizes = real(options.checkpoint, options.dataset)
    wanted = facts(rows, asked)
    profile = fit(rows, known, asked, sizes)
    tables = {"real": wanted, options.name: drawn(profile, len(rows))}
    for kind in ("trained", "gaussian"):
        population = Population(kind, len(rows), rows.shape[1], seed=0)
        tables[kind] = facts(population.all_rows(), population.items(ASKED))
    print(columns(["table", *wanted], [[name, *map(shown, found.values())] for name, found in tables.items()]))
    print(f"\n{profile.taste}")
    if options.save:
        print(f"written: {profile.save(options.name)}")


def real(checkpoint: Path, dataset: Path) -> tuple[F32, F32, F32, F32]:
    """Return user rows, vectors of known and of new items, and the number of items of each user."""
    model, data = load_unmerged(Checkpoint.load(checkpoint)), Dataset.load(dataset)
    rows = np.concatenate([part for _, part, _ in model.users.labelled_chunks()])
    generator = np.random.default_rng(0)
    vectors = []
    for split, most in (("train", KNOWN), ("cold_val", ASKED)):
        items = data.splits[split].distinct_items
        chosen = generator.permutation(items)[:most]
        parts = np.array_split(chosen, -(-len(chosen) // 64))
        vectors.append(np.concatenate([model.item_vectors([data.texts[i] for i in part]) for part in parts]))
    sizes = np.bincount(data.splits["train"].users, minlength=len(rows))
    return rows, vectors[0], vectors[1], np.maximum(sizes, 1)


def fit(rows: F32, known: F32, asked: F32, sizes: F32) -> Profile:
    """Return the profile of the taste by which drawn tables come nearest to the real one."""
    wanted = facts(rows, asked)
    deviation = (asked @ rows.T).std(1).mean()
    candidates = []
    topics = Profile.of_items(known, next(tastes(sizes)))
    for taste in tastes(sizes):
        profile = replace(topics, taste=taste)
        table, items = draw(profile, len(rows))
        profile = replace(profile, scale=float(deviation / (items @ table.T).std(1).mean()))
        candidates.append((distance(drawn(profile, len(rows)), wanted), profile))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def tastes(sizes: F32) -> Iterator[Taste]:
    """Yield the tastes that are tried; numbers of items are those of the real users."""
    logs = np.log(sizes)
    for interests in INTERESTS:
        for sharpness in SHARPNESSES:
            yield Taste(interests, sharpness, round(float(logs.mean()), 4), round(float(logs.std()), 4))


def draw(profile: Profile, count: int) -> tuple[F32, F32]:
    """Return a table of the profile and items to ask."""
    generator = np.random.default_rng(1)
    return profile.users(generator, count, profile.dim), profile.items(generator, ASKED, profile.dim)


def drawn(profile: Profile, count: int) -> dict[str, float]:
    """Return the facts of a table of the profile."""
    return facts(*draw(profile, count))


def facts(rows: F32, asked: F32) -> dict[str, float]:
    """Return what a table and its items are judged by."""
    scores = asked @ rows.T
    ranked = np.sort(scores, axis=1)[:, ::-1]
    above = (ranked - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    chances = np.exp(scores - ranked[:, :1])
    chances /= chances.sum(1, keepdims=True)
    entropy = -(chances * np.log(np.maximum(chances, 1e-30))).sum(1)
    norms = np.linalg.norm(rows, axis=1)
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    found = {
        "best": above[:, 0].mean(),
        "100th": above[:, K - 1].mean(),
        "perplexity": np.exp(entropy).mean() / len(rows),
        "norms": norms.std() / norms.mean(),
    }
    for name in ROUNDED:
        rounded = codec(name).decode(codec(name).encode(rows), rows.shape[1])
        again = np.argpartition(-(asked @ rounded.T), K, axis=1)[:, :K]
        found[name] = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(best, again, strict=True)])
    return {name: float(value) for name, value in found.items()}


def distance(found: dict[str, float], wanted: dict[str, float]) -> float:
    """Return the sum of the squared logarithms of the facts' ratios; of a recall, of what is missing from 1."""
    pairs = [(1 - found[name], 1 - wanted[name]) if name in ROUNDED else (found[name], wanted[name]) for name in wanted]
    return sum(np.log(max(a, 1e-4) / max(b, 1e-4)) ** 2 for a, b in pairs)


def shown(value: float) -> str:
    """Return a fact as a cell."""
    return f"{value:.3f}"


if __name__ == "__main__":
    main()
