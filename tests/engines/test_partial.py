from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export.engines.base import Request
from fllm_export.engines.partial import Partial, merge, select
from fllm_export.engines.reference import select_users

# Few distinct scores, so that ties are everywhere.
SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


def request(k: int) -> Request:
    return Request(k, "topk", (), None)


def brute_force(scores: list[float], ids: list[int], k: int) -> list[int]:
    return [i for _, i in sorted(zip([-s for s in scores], ids, strict=True))][:k]


@settings(max_examples=300, deadline=None)
@given(SCORES, st.integers(1, 45))
def test_select_orders_by_key_descending_then_column_ascending(scores: list[float], k: int) -> None:
    keys = np.array([scores, scores[::-1]], np.float32)
    chosen = select(keys, k)
    for row, columns in zip(keys, chosen, strict=True):
        assert columns.tolist() == brute_force(row.tolist(), list(range(len(row))), k)


@settings(max_examples=300, deadline=None)
@given(SCORES, st.integers(1, 45), st.data())
def test_any_cut_into_parts_merges_to_the_whole(scores: list[float], k: int, data: st.DataObject) -> None:
    count = len(scores)
    ids = np.array(data.draw(st.permutations(range(0, 3 * count, 3))), np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(1, max(1, count - 1)), max_size=5, unique=True)))
    parts = []
    for piece in np.split(np.arange(count), [cut for cut in cuts if cut < count]):
        piece = piece[np.argsort(ids[piece])]
        parts.append(select_users(np.array([scores], np.float32)[:, piece], ids[piece], request(k)))
    data.draw(st.randoms(use_true_random=False)).shuffle(parts)
    merged = merge(parts, k)
    expected = brute_force(scores, ids.tolist(), k)
    assert merged.ids[0].tolist() == expected
    position = {i: s for i, s in zip(ids.tolist(), scores, strict=True)}
    assert merged.scores[0].tolist() == [position[i] for i in expected]
    np.testing.assert_allclose(merged.logsumexp[0], np.log(np.exp(scores).sum()), rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=30))
def test_logsumexp_of_extreme_scores_neither_overflows_nor_vanishes(scores: list[float]) -> None:
    halves = np.array_split(np.array([scores], np.float32), 2, axis=1)
    parts = [select_users(half, np.arange(half.shape[1]), request(1)) for half in halves if half.shape[1]]
    merged: Partial = merge(parts, 1)
    top = np.float64(np.float32(max(scores)))
    assert top <= merged.logsumexp[0] <= top + np.log(len(scores)) + abs(top) * 1e-12
