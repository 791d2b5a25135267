from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from fllm_export.errors import BundleError, UsageError
from fllm_export.link import EXPONENTIAL, LARGEST_SCORE, LINKS, Link

POWERS = LINKS[1:]
SCORES = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.sampled_from(LINKS), st.lists(SCORES, min_size=2, max_size=30))
def test_a_higher_score_is_never_less_likely(link: Link, scores: list[float]) -> None:
    logits = link.logits(np.sort(np.array(scores, np.float32)))
    # The logarithm is within 2 ulp.
    assert (np.diff(logits) >= -1e-15 * np.maximum(1, np.abs(logits[1:]))).all()


@given(st.sampled_from(POWERS), SCORES)
def test_logits_are_logarithms_of_the_definition(link: Link, score: float) -> None:
    expected = math.log1p(min(max(score, 0.0), LARGEST_SCORE) ** link.exponent)
    assert link.logits(np.array([score]))[0] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(st.sampled_from(LINKS), st.lists(st.lists(st.floats(-80, 80), min_size=7, max_size=7), min_size=1, max_size=4))
def test_sums_are_those_of_the_weights(link: Link, scores: list[list[float]]) -> None:
    logits = link.logits(np.array(scores))
    m, total = link.log_sums(np.array(scores))
    np.testing.assert_allclose(m + np.log(total), np.log(np.exp(logits).sum(1)), rtol=1e-12, atol=1e-12)


@given(st.sampled_from(POWERS), SCORES)
def test_float32_scores_lose_little(link: Link, score: float) -> None:
    near = np.nextafter(np.float32(score), np.float32(np.inf))
    low, high = link.logits(np.array([score, near], np.float32))
    assert abs(high - low) <= link.exponent * 2**-22


@pytest.mark.parametrize("link", POWERS)
def test_limits(link: Link) -> None:
    scores = np.array([-np.inf, -3e38, -1.0, 0.0, 1.0, LARGEST_SCORE, 3e38, np.inf], np.float32)
    top = 30 * link.exponent * math.log(2)
    np.testing.assert_allclose(link.logits(scores), [-np.inf, 0, 0, 0, math.log(2), top, top, top], rtol=1e-9)


def test_the_exponential_leaves_scores_as_they_are() -> None:
    scores = np.array([-np.inf, -3.5, 0.0, 1e30], np.float32)
    np.testing.assert_array_equal(EXPONENTIAL.logits(scores), scores.astype(np.float64))


@pytest.mark.parametrize("exponent", [-1, 5, 99, 2.5, 2.0, "2", True, None])
def test_other_exponents_are_refused(exponent: Any) -> None:
    with pytest.raises(UsageError, match="exponent"):
        Link(exponent)


@pytest.mark.parametrize("link", POWERS)
def test_files_keep_a_link(link: Link) -> None:
    assert Link.read(link.to_json(), "there") == link


BAD_LINKS: list[Any] = [
    None,
    "power",
    2,
    [],
    {},
    {"kind": "sigmoid", "exponent": 2},
    {"kind": "exponential", "exponent": 0},
    {"kind": "power"},
    {"kind": "power", "exponent": 2, "offset": 1},
    *({"kind": "power", "exponent": value} for value in (0, 5, 99, -1, 2.5, 2.0, "2", True, None, [2], 1 << 80)),
]


@pytest.mark.parametrize("value", BAD_LINKS, ids=str)
def test_what_is_not_a_link_is_refused(value: Any) -> None:
    with pytest.raises(BundleError, match=r"there: .*`link`"):
        Link.read(value, "there")
