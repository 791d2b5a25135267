"""Merged answers of parts against one pass over all rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import UsageError
from fllm_export.engines.base import Answer
from fllm_export.engines.gumbel import gumbel
from fllm_export.scale.merge import log_sum, merge, merged_error, nothing


def one_pass(scores: np.ndarray, ids: np.ndarray, k: int, allowed: np.ndarray, seed: int | None) -> Answer:
    """Answer by sorting everything: float32 scores [B, rows] of users ``ids`` [rows]."""
    noise = 0.0 if seed is None else gumbel(seed, ids)
    keys = (scores + noise).astype(np.float32)
    order = [
        sorted(np.flatnonzero(allowed), key=lambda at, row=row: (-keys[row, at], ids[at]))[:k]
        for row in range(len(scores))
    ]
    chosen = np.array(order, np.int64).reshape(len(scores), -1)
    wide = scores.astype(np.float64)
    m = wide.max(1, initial=-np.inf)
    full = np.ones(len(scores), np.bool_)
    return Answer(
        ids=ids[chosen],
        keys=np.take_along_axis(keys, chosen, 1),
        scores=np.take_along_axis(scores, chosen, 1),
        logsumexp=m + np.log(np.exp(wide - m[:, None]).sum(1)),
        rows_scored=np.full(len(scores), len(ids)),
        complete=full,
        exact=full,
        log_probs_exact=full,
        log_prob_error=np.full(len(scores), 1e-5, np.float32),
        log_probs_certified=full,
        rows=len(ids),
        generation=3,
        scan_ms=1.0,
        merge_ms=0.0,
    )


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Scores with ties everywhere, ids in any order, who is allowed, and the rows of each part, some without any."""
    rows = draw(st.integers(1, 40))
    scores = np.array(draw(st.lists(st.integers(-3, 3), min_size=2 * rows, max_size=2 * rows)), np.float32)
    ids = np.array(draw(st.permutations(range(0, 3 * rows, 3))), np.int64)
    allowed = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=5)))
    return scores.reshape(2, rows), ids, allowed, np.split(np.arange(rows), cuts)


def padded(answer: Answer, k: int) -> Answer:
    """Return an answer as libfllm gives it: k columns, the rest of them -1 with the key of minus infinity."""
    missing = ((0, 0), (0, k - answer.ids.shape[1]))
    return replace(
        answer,
        ids=np.pad(answer.ids, missing, constant_values=-1),
        keys=np.pad(answer.keys, missing, constant_values=-np.inf),
        scores=np.pad(answer.scores, missing, constant_values=-np.inf),
    )


@settings(max_examples=150)
@given(tables(), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 2**64 - 1)), st.booleans())
def test_any_cut_merges_to_one_pass(table: tuple, k: int, seed: int | None, pads: bool) -> None:
    scores, ids, allowed, cut = table
    expected = one_pass(scores, ids, k, allowed, seed)
    parts = []
    for rows in cut:
        if not len(rows):
            parts.append(nothing(len(scores), 0, 3))
            continue
        part = one_pass(scores[:, rows], ids[rows], min(k, len(rows)), allowed[rows], seed)
        parts.append(padded(part, min(k, len(rows))) if pads else part)
    found = merge(parts, k, len(ids))
    count = expected.ids.shape[1]
    for name in ("ids", "keys", "scores"):
        np.testing.assert_array_equal(getattr(found, name)[:, :count], getattr(expected, name))
    assert (found.ids[:, count:] == -1).all()
    np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-14, atol=1e-14)
    for name in ("rows_scored", "complete", "exact", "log_probs_exact"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.rows == expected.rows
    assert found.generation == 3


@settings(max_examples=50)
@given(st.lists(st.floats(-700, 700), min_size=1, max_size=8))
def test_log_sums_do_not_depend_on_the_scale(parts: list[float]) -> None:
    found = log_sum([np.array([part, part + 5000, -np.inf]) for part in parts])
    expected = np.logaddexp.reduce(parts)
    np.testing.assert_allclose(found[:2], [expected, expected + 5000], rtol=1e-14, atol=1e-13)
    assert found[2] == -np.inf


def test_a_part_that_is_missing_is_never_complete() -> None:
    scores, ids = np.ones((2, 4), np.float32), np.arange(4)
    part = one_pass(scores, ids, 2, np.ones(4, np.bool_), None)
    found = merge([part, nothing(2, 6, 3)], 2, 10)
    assert found.rows_scored.tolist() == [4, 4]
    for flags in (found.complete, found.exact, found.log_probs_exact):
        assert not flags.any()
    np.testing.assert_array_equal(found.logsumexp, part.logsumexp)
    assert not merge([part], 2, 10).complete.any()


def test_answers_that_do_not_belong_together_are_refused() -> None:
    part = one_pass(np.ones((2, 4), np.float32), np.arange(4), 2, np.ones(4, np.bool_), None)
    with pytest.raises(UsageError, match="generations 3, 4"):
        merge([part, replace(part, generation=4)], 2, 8)
    with pytest.raises(UsageError, match="no part"):
        merge([], 2, 8)
    with pytest.raises(UsageError, match="number of items"):
        merge([part, nothing(3, 4, 3)], 2, 8)


def test_errors_of_parts_bound_that_of_the_whole() -> None:
    generator = np.random.default_rng(0)
    sums = generator.standard_normal((3, 500)) * 4
    errors = generator.exponential(0.3, (3, 500)).astype(np.float32)
    told = merged_error(list(sums), list(errors))
    for side in (-1, 1, generator.uniform(-1, 1, sums.shape)):
        off = np.abs(log_sum(list(sums + side * errors)) - log_sum(list(sums)))
        assert (off <= told + 1e-6).all()
    assert (told <= errors.max(0) + 1e-6).all()
    assert np.isnan(merged_error(list(sums), [*errors[:2], np.full(500, np.nan, np.float32)])).all()
    empty = nothing(500, 0, 3)
    with_empty = merged_error([*sums, empty.logsumexp], [*errors, empty.log_prob_error])
    np.testing.assert_allclose(with_empty, told, rtol=1e-6)
