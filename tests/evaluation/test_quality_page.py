from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from fllm_export.evaluation.evaluation import Evaluation, evaluate
from fllm_export.evaluation.examples import EXPLAINED, examples
from fllm_export.evaluation.quality_page import quality_page
from fllm_export.link import EXPONENTIAL

from ..drawn import check, measured

HOSTILE = "</blockquote><script>alert(1)</script> & <b>"


class Linear:
    """A ranker that knows the vectors of the items, and users that point somewhere."""

    link = EXPONENTIAL

    def __init__(self, small, seed=0):
        self.small = small
        self.users = np.random.default_rng(seed).standard_normal((len(small.dataset.user_ids), 8)).astype(np.float32)

    def encode(self, texts):
        return self.small.vectors[[int(re.search(r"text (\d+)", text)[1]) for text in texts]]

    def topk(self, z, k):
        return self.small.dataset.user_ids[np.argsort(-(z @ self.users.T), axis=1, kind="stable")[:, :k]]

    def rows(self):
        yield self.small.dataset.user_ids, self.users, None


@pytest.fixture
def hostile(small):
    texts = tuple(f"text {number} {HOSTILE} {'word ' * number * 20}" for number in range(len(small.dataset.texts)))
    return replace(small, dataset=replace(small.dataset, texts=texts))


@pytest.fixture
def found(hostile) -> Evaluation:
    models = [Linear(hostile), Linear(hostile, 1)]
    return evaluate(models[0], hostile.dataset, k=10, beside=models[1:], names=["<one>", "two"])


def test_a_page_is_whole_and_holds_what_was_measured(found, hostile):
    text = quality_page("Quality of <one>", {"data set": "a & b"}, found, examples(found, hostile.dataset))
    check(text)
    for each in found.methods():
        for ranking in (each.users_of_items, *each.items_of_users.values()):
            assert f">{ranking.recall:.4f}<" in text
            assert f">{ranking.ndcg:.4f}<" in text
    for model in found.models:
        assert f">{model.likelihood.per_pair:.3f}<" in text
    assert "&lt;one&gt;" in text
    assert "<one>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_the_page_without_overflow(found, hostile, width, tmp_path):
    text = quality_page("Quality", {}, found, examples(found, hostile.dataset))
    assert measured(text, width, tmp_path) == (width, width, 0, 0)


def test_examples_say_who_is_right_and_why(found, hostile):
    data = hostile.dataset
    shown = examples(found, data)
    assert len({each.item for each in shown}) == len(shown) > 1
    recalls = [sum(each.right) / each.liked_by for each in shown]
    assert recalls == sorted(recalls, reverse=True)
    cold, train = data.splits["cold_test"], data.splits["train"]
    for each in shown:
        liked = set(data.user_ids[cold.users[cold.items == each.item]])
        assert each.liked_by == len(liked)
        assert each.right == tuple(user in liked for user in each.users)
        assert [reason.user for reason in each.reasons] == [user for user in each.users if user in liked][:EXPLAINED]
        for reason in each.reasons:
            own = {data.texts[item] for item in train.items[data.user_ids[train.users] == reason.user]}
            assert {text for text, _ in reason.items} <= own
            cosines = [cosine for _, cosine in reason.items]
            assert cosines == sorted(cosines, reverse=True)


def test_a_page_of_a_model_alone_needs_no_baseline(hostile):
    found = evaluate(Linear(hostile), hostile.dataset, k=10, baselines=False)
    text = quality_page("Quality", {}, found, [])
    check(text)
    assert "best baseline" not in text
