from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.evaluation.likelihood import LikelihoodMeter
from fllm_export.link import EXPONENTIAL, Link


def measured(scores, users, link=EXPONENTIAL):
    meter = LikelihoodMeter(link)
    meter.add(scores, users)
    return meter.result()


def probabilities(scores):
    raised = np.exp(scores.astype(float) - scores.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize("exponent", [1, 2, 4])
def test_figures_of_a_power_are_those_of_its_probabilities(exponent):
    generator = np.random.default_rng(exponent)
    scores = (3 * generator.standard_normal((5, 200))).astype(np.float32)
    liked = [np.sort(generator.choice(200, 9, replace=False)) for _ in range(5)]
    found = measured(scores, liked, Link(exponent))
    p = 1 + np.maximum(scores.astype(float), 0) ** exponent
    p /= p.sum(1, keepdims=True)
    assert found.per_pair == pytest.approx(np.mean([-np.log(p[i, at]) for i, at in enumerate(liked)]), rel=1e-9)
    assert found.uniform == pytest.approx(np.log(200))
    assert sum(each.mass for each in found.bins) == pytest.approx(1)
    assert found.bins[-1].predicted <= p.max() + 1e-12


@given(seed=st.integers(0, 2**32 - 1), items=st.integers(1, 6), users=st.integers(2, 300), scale=st.floats(0, 30))
def test_figures_are_those_of_the_softmax(seed, items, users, scale):
    generator = np.random.default_rng(seed)
    scores = (generator.standard_normal((items, users)) * scale + 1000).astype(np.float32)
    liked = [np.sort(generator.choice(users, generator.integers(1, users), replace=False)) for _ in range(items)]
    found = measured(scores, liked)
    p = probabilities(scores)
    losses = np.concatenate([scores[i].max() - scores[i][at].astype(float) for i, at in enumerate(liked)])
    losses += np.concatenate([np.full(len(at), -np.log(p[i].max())) for i, at in enumerate(liked)])
    assert found.per_pair == pytest.approx(losses.mean(), rel=1e-6, abs=1e-6)
    assert found.uniform == pytest.approx(np.log(users))
    assert sum(each.pairs for each in found.bins) == items * users
    assert sum(each.mass for each in found.bins) == pytest.approx(1)
    assert sum(each.observed_mass for each in found.bins) == pytest.approx(1)
    assert 0 <= found.calibration_error <= 1 + 1e-9
    ordered = [each.predicted for each in found.bins]
    assert ordered == sorted(ordered)


def test_equal_probabilities_are_calibrated_and_as_good_as_nothing():
    found = measured(np.zeros((3, 50), np.float32), [np.array([4]), np.array([1, 2]), np.array([0])])
    assert found.per_pair == pytest.approx(found.uniform)
    assert found.calibration_error == pytest.approx(0)
    assert len(found.bins) == 1
    assert (found.bins[0].predicted, found.bins[0].observed) == pytest.approx((1 / 50, 1 / 50))


def test_a_model_that_draws_its_own_answers_is_calibrated_and_a_sharper_one_is_not():
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((400, 200)).astype(np.float32) * 2
    liked = [np.unique(generator.choice(200, 1, p=row)) for row in probabilities(scores)]
    true, sharp, flat = (measured(scores * factor, liked) for factor in (1, 2, 0.5))
    assert true.calibration_error < 0.06 < 0.15 < min(sharp.calibration_error, flat.calibration_error)
    assert true.per_pair < min(sharp.per_pair, flat.per_pair)
    assert len(true.bins) == 10
    assert all(each.mass == pytest.approx(0.1, abs=0.03) for each in true.bins)
    # The sharper model promises more than it keeps at the top, the flat one less.
    assert sharp.bins[-1].predicted > 1.3 * sharp.bins[-1].observed
    assert flat.bins[-1].predicted < flat.bins[-1].observed / 1.3


def test_blocks_add_up():
    generator = np.random.default_rng(1)
    scores = generator.standard_normal((9, 40)).astype(np.float32)
    liked = [np.array([i, i + 3]) for i in range(9)]
    meter = LikelihoodMeter()
    for start in range(0, 9, 4):
        meter.add(scores[start : start + 4], liked[start : start + 4])
    assert meter.result().per_pair == pytest.approx(measured(scores, liked).per_pair)
    assert meter.result().bins == measured(scores, liked).bins
