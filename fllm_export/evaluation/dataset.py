"""A data set on disk: item texts, and which user liked which item in which split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, HardwareError
from fllm_export.files import sha256_file

if TYPE_CHECKING:
    import pyarrow

Positions = npt.NDArray[np.int64]

ITEMS_FILE, INTERACTIONS_FILE = "items.parquet", "interactions.parquet"
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
        texts: one text an item.
        user_ids: int64 [U], ascending: the users of the split ``train``.
        splits: the pairs by split; a split without pairs is there and empty.
        sha256: of both files.
    """

    item_ids: Positions
    texts: tuple[str, ...]
    user_ids: Positions
    splits: dict[str, Pairs]
    sha256: str

    @classmethod
    def load(cls, directory: str | Path) -> Dataset:
        """Read ``items.parquet`` (item_id, text) and ``interactions.parquet`` (user_id, item_id, split).

        Raises:
            BundleError: a file or column is missing or damaged, an item has no text, a pair repeats, a cold item
                occurs in another split, or a user or warm item has no pair in ``train``.
            HardwareError: pyarrow is not installed.
        """
        items_file, pairs_file = Path(directory) / ITEMS_FILE, Path(directory) / INTERACTIONS_FILE
        items = _read(items_file, ["item_id", "text"])
        pairs = _read(pairs_file, ["user_id", "item_id", "split"])
        item_ids, texts = _items(items, items_file)
        user_ids, splits = _splits(pairs, pairs_file, item_ids)
        digest = hashlib.sha256(f"{sha256_file(items_file)} {sha256_file(pairs_file)}".encode()).hexdigest()
        return cls(item_ids, texts, user_ids, splits, digest)

    def pairs(self, *splits: str) -> Pairs:
        """Return the pairs of one or more splits together."""
        parts = [self.splits[split] for split in splits]
        return Pairs(np.concatenate([p.users for p in parts]), np.concatenate([p.items for p in parts]))


def _read(path: Path, columns: list[str]) -> pyarrow.Table:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise HardwareError(
            "reading Parquet needs pyarrow, which is not installed", fix="Run pip install 'fllm-export[train]'"
        ) from error
    if not path.is_file():
        raise BundleError(f"{path} is missing", expected=f"a data set directory with {ITEMS_FILE}, {INTERACTIONS_FILE}")
    try:
        names = parquet.read_schema(path).names
        missing = [name for name in columns if name not in names]
        if not missing:
            return parquet.read_table(path, columns=columns)
    except pa.ArrowException as error:
        raise BundleError(f"{path} cannot be read as Parquet: {error}", expected="a Parquet file") from error
    raise BundleError(f"{path} has no column `{missing[0]}`", expected="the columns " + ", ".join(columns))


def _integers(table: pyarrow.Table, column: str, path: Path) -> Positions:
    import pyarrow as pa

    values = table[column]
    if not pa.types.is_integer(values.type):
        raise BundleError(f"{path}: `{column}` is of type {values.type}", expected="integers")
    if values.null_count:
        raise BundleError(f"{path}: `{column}` has {values.null_count} nulls", expected="an integer in every row")
    numbers: Positions = values.to_numpy().astype(np.int64)
    if len(numbers) and numbers.min() < 0:
        raise BundleError(f"{path}: `{column}` holds {numbers.min()}", expected="ids of 0 or more")
    return numbers


def _strings(table: pyarrow.Table, column: str, path: Path) -> list[str]:
    values: list[str] = table[column].to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise BundleError(f"{path}: `{column}` is {value!r} in row {row}", expected="a string that is not empty")
    return values


def _items(table: pyarrow.Table, path: Path) -> tuple[Positions, tuple[str, ...]]:
    ids = _integers(table, "item_id", path)
    texts = _strings(table, "text", path)
    if not len(ids):
        raise BundleError(f"{path} holds no items", expected="at least one")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    if len(repeated):
        raise BundleError(f"{path}: item_id {ids[repeated[0]]} occurs twice", expected="each item once")
    return ids, tuple(texts[i] for i in order)


def _splits(table: pyarrow.Table, path: Path, item_ids: Positions) -> tuple[Positions, dict[str, Pairs]]:
    users, items = _integers(table, "user_id", path), _integers(table, "item_id", path)
    names = np.array(_strings(table, "split", path), dtype=str)
    unknown = sorted(set(names.tolist()) - set(SPLITS))
    if unknown:
        raise BundleError(f"{path}: the split {unknown[0]!r} is unknown", expected="one of " + ", ".join(SPLITS))
    train = names == "train"
    if not train.any():
        raise BundleError(f"{path} has no row of the split train", expected="at least one")
    user_ids = np.unique(users[train])
    columns, rows = _locate(item_ids, items), _locate(user_ids, users)
    _reject(path, columns < 0, lambda r: f"item_id {items[r]} is not in {ITEMS_FILE}", "every item to have a text")
    _reject(path, rows < 0, lambda r: f"user_id {users[r]} has no row of the split train", "every user to have one")
    order = np.lexsort((columns, rows))
    repeats = np.zeros(len(rows), bool)
    repeats[order[1:]] = (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    _reject(path, repeats, lambda r: f"user {users[r]} and item {items[r]} occur together twice", "each pair once")
    _check_items(path, names, items)
    return user_ids, {name: Pairs(rows[names == name], columns[names == name]) for name in SPLITS}


def _locate(ids: Positions, wanted: Positions) -> Positions:
    """Return the position of each wanted id in the ascending ``ids``, -1 where it is absent."""
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, -1)


def _reject(path: Path, bad: npt.NDArray[np.bool_], found: Callable[[int], str], expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise BundleError(f"{path}: {found(row)} (row {row})", expected=expected)


def _check_items(path: Path, names: npt.NDArray[np.str_], items: Positions) -> None:
    """Check that cold items are in one split only, and that every warm item is trained on."""
    trained = items[names == "train"]
    for split in WARM_SPLITS[1:]:
        bad = (names == split) & ~np.isin(items, trained)
        _reject(path, bad, lambda r: f"item {items[r]} of {names[r]} has no row of the split train", "one or more")
    for split in COLD_SPLITS:
        elsewhere = items[names != split]
        bad = (names == split) & np.isin(items, elsewhere)
        _reject(path, bad, lambda r: f"item {items[r]} of {names[r]} is in another split too", "cold items in one")
