from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fllm_export.errors import UsageError
from fllm_export.evaluation import evaluation
from fllm_export.evaluation.baselines import BASELINES
from fllm_export.evaluation.cold_split import ColdSplit
from fllm_export.evaluation.dataset import SPLITS, Dataset, Pairs
from fllm_export.evaluation.evaluation import evaluate
from fllm_export.evaluation.ranker import CheckpointRanker, encode_items, open_ranker
from fllm_export.link import EXPONENTIAL, Link
from fllm_export.progress import silent

VECTORS = {"a": [1.0, 0.0], "bb": [0.0, 1.0], "ccc": [0.6, 0.6], "dddd": [-1.0, 0.0]}
USERS = {10: [1.0, 0.0], 20: [0.0, 1.0], 30: [1.0, 1.0]}


class Fixed:
    """A ranker whose vectors are written down above."""

    link = EXPONENTIAL

    def __init__(self, users=USERS, bias=None):
        self.users = users
        self.bias = bias

    def encode(self, texts):
        return np.array([VECTORS[t] for t in texts], np.float32)

    def topk(self, z, k):
        ids, rows, bias = next(self.rows())
        scores = z @ rows.T + (0 if bias is None else bias)
        return ids[np.lexsort((np.broadcast_to(ids, scores.shape), -scores))[:, :k]]

    def rows(self):
        # Not in the order of the data set, as a table's tiles may be.
        ids = np.array(sorted(self.users, reverse=True))
        bias = None if self.bias is None else np.array([self.bias[i] for i in ids], np.float32)
        yield ids, np.array([self.users[i] for i in ids], np.float32), bias


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


def test_biases_of_users_count_in_both_rankings_and_in_the_likelihood():
    # Item 1 scores users 10, 20, 30 at 1, 0, 1; item 2 at 0, 1, 1. User 20 gets 3 more.
    data = dataset(cold_test=[(0, 1), (1, 1), (1, 2)], cold_val=[(2, 3)])
    plain = evaluate(Fixed(), data, "cold_test", k=1)
    biased = evaluate(Fixed(bias={10: 0.0, 20: 3.0, 30: 0.0}), data, "cold_test", k=1)
    assert plain.users_of_items.precision == pytest.approx(1)
    assert biased.users_of_items.precision == pytest.approx(1)
    assert biased.models[0].best[:, 0].tolist() == [1, 1]
    scores = np.array([[1, 3, 1], [0, 4, 1]])
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert biased.likelihood.per_pair == pytest.approx(-(log_p[0, 0] + log_p[0, 1] + log_p[1, 1]) / 3)
    assert plain.likelihood.per_pair != pytest.approx(biased.likelihood.per_pair)


def test_scores_of_items_of_users_hold_the_bias():
    # A bias per user changes no order of the items of one user, so the scores themselves are looked at.
    data = dataset(cold_test=[(0, 1), (1, 2)])
    cold = ColdSplit.of(data, "cold_test")
    model = evaluation._model("m", Fixed(bias={10: 0.5, 20: -1.0, 30: 2.0}), data, cold, 1, silent)
    assert model.scores(slice(0, 2)).tolist() == [[1.5, -1.0, 3.0], [0.5, 0.0, 3.0]]


def test_blocks_of_items_change_nothing(monkeypatch):
    data = dataset(cold_test=[(0, 1), (1, 1), (0, 2)], cold_val=[(0, 3), (2, 3)])
    whole = evaluate(Fixed(), data, "cold_test", k=2).to_json()
    monkeypatch.setattr("fllm_export.evaluation.cold_split._SCORES_AT_ONCE", 1)
    assert len(list(ColdSplit.of(data, "cold_test").blocks())) == 3
    assert evaluate(Fixed(), data, "cold_test", k=2).to_json() == whole


def test_a_model_without_a_base_encoder_stands_beside_the_baselines_without_text():
    data = dataset(cold_test=[(0, 1), (1, 1), (0, 2)], cold_val=[(0, 3)])
    found = evaluate(Fixed(), data, "cold_test", k=2, beside=[Fixed()], names=["one", "two"])
    assert [each.name for each in found.methods()] == ["one", "two", "random users", "most active users"]
    printed = found.to_json()
    assert [each["name"] for each in printed["beside"]] == ["two"]
    assert printed["beside"][0]["users_of_items"] == printed["users_of_items"]
    assert [each["likelihood"] for each in printed["baselines"]] == [None, None]
    assert evaluate(Fixed(), data, "cold_test", k=2, baselines=False).baselines == ()


def test_text_baselines_take_the_checkpoints_base_encoder(tiny_checkpoint, small, tmp_path):
    pytest.importorskip("scipy")
    users = len(small.dataset.user_ids)
    tiny_checkpoint("bert", users=users, dim=16).save(tmp_path / "adapted")
    tiny_checkpoint("bert", users=users, dim=16, lora=False).save(tmp_path / "plain")
    adapted, plain = open_ranker(tmp_path / "adapted"), open_ranker(tmp_path / "plain")
    data = replace(small.dataset, user_ids=np.arange(users))
    texts = list(data.texts[:4])
    np.testing.assert_allclose(adapted.base_vectors(texts), plain.base_vectors(texts), atol=1e-6)
    assert not np.allclose(adapted.encode(texts), plain.encode(texts))
    found = evaluate(adapted, data, "cold_test", k=5)
    assert [each.name for each in found.baselines] == [each.name for each in BASELINES]
    assert found.baselines[-1].params.keys() == {"g", "lambda", "r", "c"}
    same = evaluate(FixedRows(adapted), data, "cold_test", k=5, texts=tmp_path / "plain")
    ours, theirs = found.to_json()["baselines"], same.to_json()["baselines"]
    assert [each["users_of_items"] for each in ours] == [each["users_of_items"] for each in theirs]


class FixedRows:
    """A ranker that is no checkpoint, as a bundle is."""

    def __init__(self, ranker):
        self.encode, self.topk, self.rows, self.link = ranker.encode, ranker.topk, ranker.rows, ranker.link


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


@pytest.mark.parametrize("exponent", [0, 2])
def test_likely_users_come_with_the_logarithms_of_their_probabilities(tiny_checkpoint, tmp_path, exponent):
    checkpoint = tiny_checkpoint("bert", users=50, dim=16)
    checkpoint = replace(checkpoint, spec=replace(checkpoint.spec, link=Link(exponent)))
    checkpoint.save(tmp_path / "checkpoint")
    ranker = open_ranker(tmp_path / "checkpoint")
    z = ranker.encode(["jazz", "a running shoe for wet roads"])
    scores = (z @ checkpoint.users.read(0, 50).T).astype(float)
    users, log_probs = ranker.likely_users(z, 7)
    weights = 1 + np.maximum(scores, 0) ** exponent if exponent else np.exp(scores)
    expected = np.log(weights / weights.sum(1, keepdims=True))
    assert ranker.link == Link(exponent)
    assert np.array_equal(users, ranker.topk(z, 7))
    np.testing.assert_allclose(log_probs, np.take_along_axis(expected, users, 1), atol=1e-5)
