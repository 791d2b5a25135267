from __future__ import annotations

import gzip
import json

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
        ({"item_id": ITEMS["item_id"]}, PAIRS, "expected a column 'text'"),
        ({**ITEMS, "item_id": [7, 3, 5, 5]}, PAIRS, "item_id 5 occurs twice"),
        ({**ITEMS, "text": ["seven", " ", "five", "nine"]}, PAIRS, "row 1: text 1 is ' '"),
        ({**ITEMS, "text": ["seven", None, "five", "nine"]}, PAIRS, "row 1: text 1 is None"),
        ({**ITEMS, "item_id": [7.0, 3.0, 5.0, 9.0]}, PAIRS, "`item_id` is of type double"),
        ({**ITEMS, "item_id": [7, None, 5, 9]}, PAIRS, "`item_id` has 1 nulls"),
        ({**ITEMS, "item_id": [7, -3, 5, 9]}, PAIRS, "row 1: `item_id` is -3"),
        (ITEMS, {**PAIRS, "split": ["warm_val"] * 6}, "no row of the split train"),
        (ITEMS, with_row(10, 4, "train"), "row 6: item_id 4 is not among the items"),
        (ITEMS, with_row(20, 3, "warm_test"), "user 20 and item 3 occur together twice"),
        (ITEMS, with_row(10, 5, "test"), "row 6: the split is 'test'"),
        (ITEMS, with_row(10, 5, "train"), "item 5 of cold_val is in another split too"),
        (ITEMS, with_row(10, 5, "cold_test"), "item 5 of cold_val is in another split too"),
        (ITEMS, {**PAIRS, "item_id": [3, 3, 7, 7, 5, 5]}, "item 5 of cold_val is in another split too"),
    ],
)
def test_unfit_data_is_refused_by_name(tmp_path, items, pairs, words):
    with pytest.raises(BundleError, match=words):
        Dataset.load(write(tmp_path, items, pairs))


def test_users_without_a_training_pair_are_left_out(tmp_path):
    pairs = with_row(15, 5, "cold_val")
    pairs = {name: [*values, extra] for (name, values), extra in zip(pairs.items(), (30, 7, "warm_test"), strict=True)}
    data = Dataset.load(write(tmp_path, ITEMS, pairs))
    assert data.left_out == 2
    assert data.user_ids.tolist() == [10, 20]
    whole = Dataset.load(write(tmp_path), strict=True)
    assert whole.left_out == 0
    for split, found in data.splits.items():
        assert found.users.tolist() == whole.splits[split].users.tolist()
        assert found.items.tolist() == whole.splits[split].items.tolist()
    write(tmp_path, ITEMS, pairs)
    with pytest.raises(BundleError, match="row 6: user_id 15 has no row of the split train; expected one"):
        Dataset.load(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("items", "pairs"), [("items.CSV", "interactions.tsv.gz"), ("items.jsonl", "interactions.ndjson")]
)
def test_a_data_set_of_text_files_is_the_same(tmp_path, items, pairs):
    expected = Dataset.load(write(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    for name, columns in ((items, ITEMS), (pairs, PAIRS)):
        rows = list(zip(*columns.values(), strict=True))
        if "json" in name:
            text = "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        else:
            between = "\t" if "tsv" in name else ","
            text = "".join(between.join(map(str, row)) + "\r\n" for row in [tuple(columns), *rows])
        raw = text.encode()
        (other / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    found = Dataset.load(other)
    assert found.texts == expected.texts
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    assert {s: (p.users.tolist(), p.items.tolist()) for s, p in found.splits.items()} == {
        s: (p.users.tolist(), p.items.tolist()) for s, p in expected.splits.items()
    }
    write(other)
    with pytest.raises(BundleError, match=r"holds items\.\w+ and items\.parquet; expected one file of items"):
        Dataset.load(other)


def test_a_warm_item_needs_a_training_pair(tmp_path):
    pairs = {**PAIRS, "item_id": [3, 3, 3, 7, 5, 9], "user_id": [20, 10, 21, 10, 20, 10]}
    with pytest.raises(BundleError, match="item 7 of warm_val has no row of the split train"):
        Dataset.load(write(tmp_path, ITEMS, pairs))


def test_missing_and_damaged_files(tmp_path):
    write(tmp_path)
    (tmp_path / "interactions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BundleError, match=r"interactions\.parquet is not a Parquet file"):
        Dataset.load(tmp_path)
    (tmp_path / "interactions.parquet").unlink()
    with pytest.raises(BundleError, match=r"interactions\.parquet is missing"):
        Dataset.load(tmp_path)
