"""A data set on disk: item texts, and which user liked which item in which split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.errors import BundleError
from fllm_export.files import sha256_file
from fllm_export.item_texts import text_column
from fllm_export.text_file import ENDINGS, Columns, read_columns

Positions = npt.NDArray[np.int64]

ITEMS, INTERACTIONS = "items", "interactions"
WARM_SPLITS = ("train", "warm_val", "warm_test")
COLD_SPLITS = ("cold_val", "cold_test")
SPLITS = WARM_SPLITS + COLD_SPLITS


@dataclass(frozen=True)
class Pairs:
    """Positive pairs, as positions in :attr:`Dataset.user_ids` and :attr:`Dataset.item_ids`.

    Attributes:
        users: int64 [P].
        items: int64 [P].
    """

    users: Positions
    items: Positions

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def distinct_items(self) -> Positions:
        """The items that occur, ascending."""
        return np.unique(self.items)

    def users_of(self, items: Positions) -> list[Positions]:
        """Return for each of ``items`` the users that liked it; an item without a pair has none."""
        order = np.argsort(self.items, kind="stable")
        owners, users = self.items[order], self.users[order]
        first, last = np.searchsorted(owners, items, "left"), np.searchsorted(owners, items, "right")
        return [users[a:b] for a, b in zip(first, last, strict=True)]

    def swapped(self) -> Pairs:
        """Return the same pairs with the roles of users and items exchanged."""
        return Pairs(self.items, self.users)


@dataclass(frozen=True)
class Dataset:
    """Items with texts, users, and the pairs of each split.

    Attributes:
        item_ids: int64 [I], ascending.
        texts: one text per item.
        user_ids: int64 [U], ascending: the users of the split ``train``.
        splits: the pairs by split; a split without pairs is there and empty.
        sha256: of both files.
        left_out: number of users without a pair in ``train``; they and their pairs are not in here.
    """

    item_ids: Positions
    texts: tuple[str, ...]
    user_ids: Positions
    splits: dict[str, Pairs]
    sha256: str
    left_out: int = 0

    @classmethod
    def load(cls, directory: str | Path, *, strict: bool = False) -> Dataset:
        """Read ``items`` (item_id, text) and ``interactions`` (user_id, item_id, split).

        Args:
            directory: holds both, each as ``.parquet``, ``.csv``, ``.tsv`` or ``.jsonl`` (see
                :mod:`fllm_export.text_file`).
            strict: refuse a user without a pair in ``train``, instead of leaving the user out.

        Raises:
            BundleError: a file or column is missing or damaged, an item has no text, a pair repeats, a cold item
                occurs in another split, or a warm item (``strict``: or a user) has no pair in ``train``.
            HardwareError: pyarrow is not installed.
        """
        directory = arguments.path(directory, "directory")
        items_file, pairs_file = _file(directory, ITEMS), _file(directory, INTERACTIONS)
        item_ids, texts = _items(read_columns(items_file, ["item_id", "text"]))
        pairs = read_columns(pairs_file, ["user_id", "item_id", "split"])
        user_ids, splits, left_out = _splits(pairs, item_ids, strict)
        digest = hashlib.sha256(f"{sha256_file(items_file)} {sha256_file(pairs_file)}".encode()).hexdigest()
        return cls(item_ids, texts, user_ids, splits, digest, left_out)

    def pairs(self, *splits: str) -> Pairs:
        """Return the pairs of one or more splits together."""
        parts = [self.splits[split] for split in splits]
        return Pairs(np.concatenate([p.users for p in parts]), np.concatenate([p.items for p in parts]))


def _file(directory: Path, stem: str) -> Path:
    """Return the one file of that stem whose ending can be read."""
    names = {f"{stem}{ending}{packed}" for ending in ENDINGS for packed in ("", ".gz")}
    found = sorted(path for path in directory.iterdir() if path.name.lower() in names) if directory.is_dir() else []
    if not found:
        raise BundleError(
            f"{directory / stem}.parquet is missing",
            expected=f"a data set directory with {ITEMS} and {INTERACTIONS}, each in one of " + ", ".join(ENDINGS),
        )
    if len(found) > 1:
        raise BundleError(f"{directory} holds {found[0].name} and {found[1].name}", expected=f"one file of {stem}")
    return found[0]


def _ids(columns: Columns, name: str) -> Positions:
    ids = columns.integers(name)
    _reject(columns, ids < 0, lambda r: f"`{name}` is {ids[r]}", "an id of 0 or more")
    return ids


def _items(columns: Columns) -> tuple[Positions, tuple[str, ...]]:
    ids = _ids(columns, "item_id")
    texts = text_column(columns)
    if not len(ids):
        raise BundleError(f"{columns.path} holds no items", expected="at least one")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    if len(repeated):
        row = int(order[repeated[0] + 1])
        raise BundleError(f"{columns.where(row)}: item_id {ids[repeated[0]]} occurs twice", expected="each item once")
    return ids, tuple(texts[i] for i in order)


def _splits(columns: Columns, item_ids: Positions, strict: bool) -> tuple[Positions, dict[str, Pairs], int]:
    users, items = _ids(columns, "user_id"), _ids(columns, "item_id")
    named = columns.objects("split")
    unknown = np.array([name not in SPLITS for name in named], bool)
    _reject(columns, unknown, lambda r: f"the split is {named[r]!r:.60}", "one of " + ", ".join(SPLITS))
    names = np.array(named, str)
    train = names == "train"
    if not train.any():
        raise BundleError(f"{columns.path} has no row of the split train", expected="at least one")
    user_ids = np.unique(users[train])
    rows, places = _locate(user_ids, users), _locate(item_ids, items)
    _reject(columns, places < 0, lambda r: f"item_id {items[r]} is not among the items", "every item to have a text")
    untrained = rows < 0
    if strict:
        _reject(columns, untrained, lambda r: f"user_id {users[r]} has no row of the split train", "one for every user")
    order = np.lexsort((items, users))
    repeats = np.zeros(len(rows), bool)
    repeats[order[1:]] = (np.diff(users[order]) == 0) & (np.diff(items[order]) == 0)
    _reject(columns, repeats, lambda r: f"user {users[r]} and item {items[r]} occur together twice", "each pair once")
    _check_items(columns, names, items)
    left_out = len(np.unique(users[untrained]))
    kept = {name: (names == name) & ~untrained for name in SPLITS}
    return user_ids, {name: Pairs(rows[chosen], places[chosen]) for name, chosen in kept.items()}, left_out


def _locate(ids: Positions, wanted: Positions) -> Positions:
    """Return the position of each wanted id in the ascending ``ids``, -1 where it is absent."""
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, -1)


def _reject(columns: Columns, bad: npt.NDArray[np.bool_], found: Callable[[int], str], expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise BundleError(f"{columns.where(row)}: {found(row)}", expected=expected)


def _check_items(columns: Columns, names: npt.NDArray[np.str_], items: Positions) -> None:
    """Check that cold items are in one split only, and that every warm item is trained on."""
    trained = items[names == "train"]
    for split in WARM_SPLITS[1:]:
        bad = (names == split) & ~np.isin(items, trained)
        _reject(columns, bad, lambda r: f"item {items[r]} of {names[r]} has no row of the split train", "one or more")
    for split in COLD_SPLITS:
        elsewhere = items[names != split]
        bad = (names == split) & np.isin(items, elsewhere)
        _reject(columns, bad, lambda r: f"item {items[r]} of {names[r]} is in another split too", "cold items in one")
