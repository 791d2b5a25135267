"""A small data set whose users like what a tiny model says that they like, so that the loop can win."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.users import UserRows
from fllm_export.evaluation.dataset import SPLITS, Dataset, Pairs
from fllm_export.evaluation.ranker import encode_items, open_ranker

USERS, WARM, HELD = 50, 70, 15
LIKED_BY = 10


def of_rows(splits: dict[str, np.ndarray], users: int, texts: tuple[str, ...]) -> Dataset:
    """Return a data set of pairs (user, item) per split, int64 [P, 2]; ids are 10 times the positions."""
    pairs = {name: splits.get(name, np.empty((0, 2), np.int64)).reshape(-1, 2) for name in SPLITS}
    found = {name: Pairs(rows[:, 0].copy(), rows[:, 1].copy()) for name, rows in pairs.items()}
    return Dataset(10 * np.arange(len(texts)), texts, 10 * np.arange(users), found, "digest")


def random_dataset(seed: int = 0, users: int = 12, warm: int = 15, held: int = 4) -> Dataset:
    """Return random pairs in all splits; every user and every warm item is trained."""
    generator = np.random.default_rng(seed)
    liked = generator.random((users, warm + 2 * held)) < 0.4
    liked[np.arange(warm) % users, np.arange(warm)] = True
    splits: dict[str, list[tuple[int, int]]] = {name: [] for name in SPLITS}
    for user, item in np.argwhere(liked).tolist():
        sure = user == item % users
        warm_split = "train" if sure else str(generator.choice(["train", "warm_val", "warm_test"]))
        split = warm_split if item < warm else "cold_val" if item < warm + held else "cold_test"
        splits[split].append((user, item))
    rows = {name: np.array(found, np.int64).reshape(-1, 2) for name, found in splits.items()}
    return of_rows(rows, users, tuple(f"text {n}" for n in range(warm + 2 * held)))


def item_texts() -> tuple[str, ...]:
    """Return the texts of the items of :func:`taught_dataset`."""
    words = ("jazz", "sea", "protein", "novel", "wet", "trumpet", "yeast", "fox", "lazy", "gene", "deep", "road")
    generator = np.random.default_rng(3)
    return tuple(" ".join(generator.choice(words, 6)) + f" {n}" for n in range(WARM + 2 * HELD))


def save_model(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint with other users, who differ in what they like and not in how much they like everything."""
    checkpoint.save(folder)
    z = encode_items(open_ranker(folder), item_texts()).astype(np.float64)
    mean, spread = z.mean(0), np.cov(z.T)
    values, turns = np.linalg.eigh(spread + 1e-3 * np.trace(spread) * np.eye(len(spread)))
    directions = np.random.default_rng(5).standard_normal((USERS, z.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    tastes = directions @ (turns / np.sqrt(values)) @ turns.T
    rows = tastes - np.outer(tastes @ mean, mean) / (mean @ mean)
    shutil.rmtree(folder)
    replace(checkpoint, users=UserRows.from_array(rows.astype(np.float32))).save(folder)


def taught_dataset(model: Path) -> Dataset:
    """Return pairs of each item and the users whom a model of :func:`save_model` ranks first for it."""
    texts, ranker = item_texts(), open_ranker(model)
    users = ranker.topk(encode_items(ranker, texts), LIKED_BY)
    splits: dict[str, list[tuple[int, int]]] = {name: [] for name in SPLITS}
    for item, found in enumerate(users.tolist()):
        for rank, user in enumerate(found):
            warm = "warm_test" if rank == 3 else "warm_val" if rank == 5 else "train"
            name = warm if item < WARM else "cold_val" if item < WARM + HELD else "cold_test"
            splits[name].append((user, item))
    # A data set holds users with a trained pair alone, and a model must have the same.
    for user in set(range(USERS)) - {user for user, _ in splits["train"]}:
        splits["train"].append((user, user % WARM))
    data = of_rows({name: np.array(rows) for name, rows in splits.items()}, USERS, texts)
    return replace(data, user_ids=np.arange(USERS))
