from __future__ import annotations

import numpy as np
import pytest

from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import SPLITS, Dataset, Pairs
from fllm_export.evaluation.evaluation import evaluate
from fllm_export.evaluation.ranker import CheckpointRanker, encode_items, open_ranker

VECTORS = {"a": [1.0, 0.0], "bb": [0.0, 1.0], "ccc": [0.6, 0.6], "dddd": [-1.0, 0.0]}
USERS = {10: [1.0, 0.0], 20: [0.0, 1.0], 30: [1.0, 1.0]}


class Fixed:
    """A ranker whose vectors are written down above."""

    def __init__(self, users=USERS):
        self.users = users

    def encode(self, texts):
        return np.array([VECTORS[t] for t in texts], np.float32)

    def topk(self, z, k):
        ids, rows = next(self.rows())
        return ids[np.argsort(-(z @ rows.T), axis=1, kind="stable")[:, :k]]

    def rows(self):
        # Not in the order of the data set, as a table's tiles may be.
        ids = np.array(sorted(self.users, reverse=True))
        yield ids, np.array([self.users[i] for i in ids], np.float32)


def dataset(**splits):
    """Items: 0 is trained, 1 to 3 are cold. Users 10, 20, 30 are positions 0, 1, 2."""
    given = {"train": [(0, 0), (1, 0), (2, 0)], **splits}
    pairs = {name: np.array(given.get(name, []), np.int64).reshape(-1, 2) for name in SPLITS}
    return Dataset(
        item_ids=np.arange(4),
        texts=("dddd", "a", "bb", "ccc"),
        user_ids=np.array([10, 20, 30]),
        splits={name: Pairs(rows[:, 0], rows[:, 1]) for name, rows in pairs.items()},
        sha256="",
    )


def test_users_of_an_item_worked_by_hand():
    # Item 1 ranks users 10 and 30 equal, then 20; item 2 ranks 20 and 30, then 10. k = 2.
    data = dataset(cold_test=[(0, 1), (1, 1), (0, 2)], cold_val=[(0, 3)])
    found = evaluate(Fixed(), data, "cold_test", k=2).users_of_items
    assert found.lists == 2
    assert found.precision == pytest.approx((1 / 2 + 0) / 2)
    assert found.recall == pytest.approx((1 / 2 + 0) / 2)


def test_items_of_a_user_with_both_masks_worked_by_hand():
    # User 10 ranks the cold items 1 (score 1), 3 (0.6), 2 (0); likes 2 in cold_test and 1 in cold_val.
    data = dataset(cold_test=[(0, 2)], cold_val=[(0, 1), (1, 3)])
    found = evaluate(Fixed(), data, "cold_test", k=2)
    assert found.candidates == 3
    assert found.items_of_users["A"].recall == 0.0
    assert found.items_of_users["A"].lists == 1
    assert found.items_of_users["B"].recall == 1.0
    assert found.items_of_users["B"].ndcg == pytest.approx(1 / np.log2(3))


def test_both_cold_splits_together():
    data = dataset(cold_test=[(0, 2)], cold_val=[(0, 1), (1, 3)])
    found = evaluate(Fixed(), data, "cold", k=1)
    assert found.users_of_items.lists == 3
    assert found.items_of_users["A"].lists == 2
    # User 10's first item is 1, right; user 20's first is 2, wrong.
    assert found.items_of_users["A"].precision == pytest.approx(0.5)
    assert found.to_json()["items_of_users"]["A"]["users"] == 2


@pytest.mark.parametrize(
    ("split", "k", "users", "words"),
    [
        ("warm_test", 1, USERS, "split is 'warm_test'"),
        ("cold_test", 1, USERS, "no pairs in cold_test"),
        ("cold_val", 4, USERS, "k is 4; expected 1 to 1"),
        ("cold_val", 1, {10: [0.0, 1.0]}, "the model has 1 users and the data set 3"),
        ("cold_val", 1, {10: [0.0, 1.0], 20: [1.0, 1.0], 40: [0.0, 1.0]}, "or their ids differ"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(split, k, users, words):
    with pytest.raises(UsageError, match=words):
        evaluate(Fixed(users), dataset(cold_val=[(0, 1)]), split, k)


def test_items_come_back_in_their_own_order_whatever_their_length():
    texts = ["dddd", "a", "ccc", "bb"] * 40
    assert np.array_equal(encode_items(Fixed(), texts), Fixed().encode(texts))


def test_a_directory_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"neither filterllm\.json nor manifest\.json"):
        open_ranker(tmp_path)


def test_a_checkpoint_ranks_users_by_score(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("bert", users=50, dim=16)
    checkpoint.save(tmp_path / "checkpoint")
    ranker = open_ranker(tmp_path / "checkpoint")
    assert isinstance(ranker, CheckpointRanker)
    z = ranker.encode(["jazz", "a running shoe for wet roads"])
    scores = z @ checkpoint.users.read(0, 50).T
    assert np.array_equal(ranker.topk(z, 7), np.argsort(-scores, axis=1, kind="stable")[:, :7])
