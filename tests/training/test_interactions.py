from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")

from pyarrow import csv, parquet  # noqa: E402

from fllm_export import pair_files  # noqa: E402
from fllm_export.errors import BundleError, UsageError  # noqa: E402
from fllm_export.pair_files import PairArrays, PairFile  # noqa: E402
from fllm_export.training import interactions as module  # noqa: E402
from fllm_export.training import user_parts  # noqa: E402
from fllm_export.training.interactions import Interactions  # noqa: E402

ITEM_IDS = np.random.default_rng(5).permutation(np.arange(100, 160))


def drawn(pairs=2000, users=150, wide=False):
    """Pairs in no order, with repeats; item 159 has no user, and one user has two fifths of all pairs."""
    generator = np.random.default_rng(pairs)
    names = np.sort(generator.integers(0, 2**62 if wide else 10_000, users))
    owners = np.where(generator.random(pairs) < 0.4, names[7], generator.choice(names, pairs))
    return owners, generator.integers(100, 159, pairs)


def expected(users, items):
    place = {item: position for position, item in enumerate(ITEM_IDS.tolist())}
    found = {}
    for user, item in sorted(set(zip(users.tolist(), items.tolist(), strict=True))):
        found.setdefault(user, set()).add(place[item])
    return found


def grouped(interactions, skip=0):
    found = {}
    for block in interactions.blocks(skip):
        for number, user in enumerate(block.ids.tolist()):
            items = block.users.part(number, number + 1).items
            assert user not in found
            assert np.all(np.diff(items) > 0)
            found[user] = set(interactions.items[items].tolist())
    assert list(found) == sorted(found)
    return found


@pytest.fixture
def small_blocks(monkeypatch):
    """Batches, blocks and parts so small that all of them are cut many times."""
    monkeypatch.setattr(pair_files, "PAIRS_AT_ONCE", 90)
    monkeypatch.setattr(module, "_BLOCK_PAIRS", 150)
    monkeypatch.setattr(user_parts, "_PART_PAIRS", 300)


@pytest.mark.parametrize("order", ["ascending", "any"])
@pytest.mark.parametrize("wide", [False, True])
def test_pairs_are_grouped_by_user(tmp_path, small_blocks, order, wide):
    users, items = drawn(wide=wide)
    if order == "ascending":
        at = np.argsort(users, kind="stable")
        users, items = users[at], items[at]
    found = Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)
    truth = expected(users, items)
    assert grouped(found) == truth
    assert (found.users, found.pairs) == (len(truth), sum(map(len, truth.values())))
    counts = np.bincount([place for liked in truth.values() for place in liked], minlength=60)
    assert np.array_equal(found.items, np.flatnonzero(counts))
    assert np.array_equal(found.counts, counts[counts > 0])
    parts = len(list(tmp_path.glob("part-*")))
    assert parts == 0 if order == "ascending" else parts > 4
    assert list(grouped(found, skip=40).items()) == list(truth.items())[40:]
    assert len(list(found.blocks())) > 2


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "csv.gz"])
def test_every_kind_of_file_gives_the_same(tmp_path, ending):
    users, items = drawn(500)
    splits = np.where(np.arange(500) % 3 == 0, "cold_val", "train")
    table = pa.table({"split": splits, "item_id": items, "user_id": users})
    path = tmp_path / f"interactions.{ending}"
    if ending == "parquet":
        parquet.write_table(table, path, row_group_size=64)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        with pa.output_stream(path) as stream:
            csv.write_csv(table, stream, csv.WriteOptions(delimiter="\t" if ending == "tsv" else ","))
    for split, kept in (("train", splits == "train"), (None, splits != "")):
        found = Interactions(PairFile(path, split), ITEM_IDS, tmp_path / str(split))
        assert grouped(found) == expected(users[kept], items[kept])


def test_a_finished_count_is_not_made_again(tmp_path, small_blocks, monkeypatch):
    users, items = drawn()
    first = Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)
    monkeypatch.setattr(PairArrays, "batches", lambda self: pytest.fail("read again"))
    again = Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)
    assert grouped(again) == grouped(first) == expected(users, items)
    monkeypatch.undo()
    other = Interactions(PairArrays(users[:900], items[:900]), ITEM_IDS, tmp_path)
    assert grouped(other) == expected(users[:900], items[:900])


def test_an_interrupted_cut_begins_again(tmp_path, small_blocks):
    users, items = drawn()

    def interrupt(stage, done, total):
        if stage.startswith("cutting") and done > 700:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interactions(PairArrays(users, items), ITEM_IDS, tmp_path, interrupt)
    assert grouped(Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)) == expected(users, items)


def test_damaged_parts_are_refused(tmp_path, small_blocks):
    users, items = drawn()
    Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)
    part = tmp_path / "part-00003.pairs"
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(BundleError, match="part-00003"):
        grouped(Interactions(PairArrays(users, items), ITEM_IDS, tmp_path))


def test_a_sample_keeps_whole_users(tmp_path, small_blocks):
    users, items = drawn()
    found = Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)
    truth = expected(users, items)
    some = found.sample(60, seed=3)
    assert 30 < len(some.ids) < 90
    for number, user in enumerate(some.ids.tolist()):
        liked = found.items[some.users.part(number, number + 1).items]
        assert set(liked.tolist()) == truth[user]
    assert len(found.sample(10**6, seed=0).ids) == found.users


@pytest.mark.parametrize(
    ("users", "items", "error", "message"),
    [
        ([1, 2], [100, 7], BundleError, "item_id 7"),
        ([1, 2], [100, 2**40], BundleError, "item_id"),
        ([], [], UsageError, "no pair"),
        ([1, -2], [100, 101], UsageError, "users runs"),
        ([1.5, 2], [100, 101], UsageError, "float"),
        ([1], [100, 101], UsageError, "one per row"),
    ],
)
def test_bad_pairs_are_named(tmp_path, users, items, error, message):
    with pytest.raises(error, match=message):
        Interactions(PairArrays(users, items), ITEM_IDS, tmp_path)


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "pairs.parquet"
    for columns, message in (
        ({"user_id": [1]}, "item_id"),
        ({"user_id": [1.5], "item_id": [100]}, "double"),
        ({"user_id": [1, None], "item_id": [100, 101]}, "null"),
        ({"user_id": [1, -3], "item_id": [100, 101]}, "-3"),
    ):
        parquet.write_table(pa.table(columns), path)
        with pytest.raises(BundleError, match=message):
            Interactions(PairFile(path), ITEM_IDS, tmp_path / "work")
    path.write_bytes(b"PAR1")
    with pytest.raises(BundleError, match=r"pairs\.parquet"):
        PairFile(path)
    text = tmp_path / "pairs.csv"
    for content in ("user_id,item_id\n1,x\n", "user_id,thing\n1,100\n", "user_id,item_id\n1\n"):
        text.write_text(content)
        with pytest.raises(BundleError, match=r"pairs\.csv"):
            Interactions(PairFile(text), ITEM_IDS, tmp_path / "work")
    with pytest.raises(UsageError, match="not a file"):
        PairFile(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match="twice"):
        Interactions(PairArrays([1], [100]), [100, 100], tmp_path / "work")
