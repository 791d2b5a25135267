from __future__ import annotations

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from fllm_export.errors import BundleError  # noqa: E402
from fllm_export.evaluation.dataset import Dataset  # noqa: E402

ITEMS = {"item_id": [7, 3, 5, 9], "text": ["seven", "three", "five", "nine"]}
PAIRS = {
    "user_id": [20, 10, 20, 10, 20, 10],
    "item_id": [3, 3, 7, 7, 5, 9],
    "split": ["train", "train", "train", "warm_val", "cold_val", "cold_test"],
}


def write(path, items=ITEMS, pairs=PAIRS):
    for name, columns in (("items", items), ("interactions", pairs)):
        parquet.write_table(pa.table(columns), path / f"{name}.parquet")
    return path


def test_ids_become_positions_in_ascending_order(tmp_path):
    data = Dataset.load(write(tmp_path))
    assert data.item_ids.tolist() == [3, 5, 7, 9]
    assert data.texts == ("three", "five", "seven", "nine")
    assert data.user_ids.tolist() == [10, 20]
    assert data.splits["cold_val"].users.tolist() == [1]
    assert data.splits["cold_val"].items.tolist() == [1]
    assert len(data.splits["warm_test"]) == 0
    assert data.pairs("cold_val", "cold_test").distinct_items.tolist() == [1, 3]


def test_users_of_items_and_items_of_users(tmp_path):
    train = Dataset.load(write(tmp_path)).splits["train"]
    assert [sorted(u.tolist()) for u in train.users_of(np.array([0, 1, 2]))] == [[0, 1], [], [1]]
    assert [sorted(i.tolist()) for i in train.swapped().users_of(np.array([1, 0]))] == [[0, 2], [0]]


def test_the_digest_follows_the_content(tmp_path):
    (tmp_path / "other").mkdir()
    first = Dataset.load(write(tmp_path)).sha256
    changed = {**ITEMS, "text": ["seven", "three", "five", "ten"]}
    assert Dataset.load(write(tmp_path)).sha256 == first
    assert Dataset.load(write(tmp_path / "other", changed)).sha256 != first


def with_row(user, item, split):
    return {k: [*PAIRS[k], v] for k, v in zip(PAIRS, (user, item, split), strict=True)}


@pytest.mark.parametrize(
    ("items", "pairs", "words"),
    [
        ({"item_id": ITEMS["item_id"]}, PAIRS, "no column `text`"),
        ({**ITEMS, "item_id": [7, 3, 5, 5]}, PAIRS, "item_id 5 occurs twice"),
        ({**ITEMS, "text": ["seven", " ", "five", "nine"]}, PAIRS, "`text` is ' ' in row 1"),
        ({**ITEMS, "text": ["seven", None, "five", "nine"]}, PAIRS, "`text` is None in row 1"),
        ({**ITEMS, "item_id": [7.0, 3.0, 5.0, 9.0]}, PAIRS, "`item_id` is of type double"),
        ({**ITEMS, "item_id": [7, None, 5, 9]}, PAIRS, "`item_id` has 1 nulls"),
        ({**ITEMS, "item_id": [7, -3, 5, 9]}, PAIRS, "`item_id` holds -3"),
        (ITEMS, {**PAIRS, "split": ["warm_val"] * 6}, "no row of the split train"),
        (ITEMS, with_row(10, 4, "train"), "item_id 4 is not in items.parquet"),
        (ITEMS, with_row(30, 5, "cold_val"), "user_id 30 has no row of the split train"),
        (ITEMS, with_row(20, 3, "warm_test"), "user 20 and item 3 occur together twice"),
        (ITEMS, with_row(10, 5, "test"), "the split 'test' is unknown"),
        (ITEMS, with_row(10, 5, "train"), "item 5 of cold_val is in another split too"),
        (ITEMS, with_row(10, 5, "cold_test"), "item 5 of cold_val is in another split too"),
        (ITEMS, {**PAIRS, "item_id": [3, 3, 7, 7, 5, 5]}, "item 5 of cold_val is in another split too"),
    ],
)
def test_unfit_data_is_refused_by_name(tmp_path, items, pairs, words):
    with pytest.raises(BundleError, match=words):
        Dataset.load(write(tmp_path, items, pairs))


def test_a_warm_item_needs_a_training_pair(tmp_path):
    pairs = {**PAIRS, "item_id": [3, 3, 3, 7, 5, 9], "user_id": [20, 10, 21, 10, 20, 10]}
    with pytest.raises(BundleError, match="item 7 of warm_val has no row of the split train"):
        Dataset.load(write(tmp_path, ITEMS, pairs))


def test_missing_and_damaged_files(tmp_path):
    write(tmp_path)
    (tmp_path / "interactions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BundleError, match=r"interactions\.parquet cannot be read as Parquet"):
        Dataset.load(tmp_path)
    (tmp_path / "interactions.parquet").unlink()
    with pytest.raises(BundleError, match=r"interactions\.parquet is missing"):
        Dataset.load(tmp_path)
