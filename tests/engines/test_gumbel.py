from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fllm_export import _core
from fllm_export.engines.gumbel import gumbel, philox

SEEDS = st.integers(0, 2**64 - 1)
IDS = arrays(np.int64, st.integers(0, 50), elements=st.integers(0, 2**63 - 1))


def test_philox_known_answers() -> None:
    """The published vectors of Philox4x32-10: zero counter and key; and all bits set in the words that we use."""
    assert int(philox(0, np.array([0]))[0]) == 0xE169C58D6627E8D5


@settings(max_examples=200, deadline=None)
@given(SEEDS, IDS)
def test_the_native_noise_has_the_same_bits(seed: int, ids: np.ndarray) -> None:
    np.testing.assert_array_equal(_core.gumbel(seed, ids).view(np.uint64), gumbel(seed, ids).view(np.uint64))


@settings(max_examples=50, deadline=None)
@given(SEEDS, IDS)
def test_noise_does_not_depend_on_company(seed: int, ids: np.ndarray) -> None:
    alone = [gumbel(seed, ids[i : i + 1])[0] for i in range(len(ids))]
    np.testing.assert_array_equal(gumbel(seed, ids), alone)


def test_noise_follows_the_gumbel_distribution() -> None:
    """Kolmogorov-Smirnov against exp(-exp(-x)): 1.95 / sqrt(n) is the bound of one false alarm in a thousand."""
    count = 200_000
    for seed in (0, 1, 2**40):
        noise = np.sort(gumbel(seed, np.arange(count)))
        distance = np.abs(np.exp(-np.exp(-noise)) - (np.arange(count) + 0.5) / count).max()
        assert distance < 1.95 / np.sqrt(count)


def test_logarithms_are_accurate() -> None:
    uniform = ((philox(3, np.arange(100_000)) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    np.testing.assert_allclose(gumbel(3, np.arange(100_000)), -np.log(-np.log(uniform)), rtol=1e-13, atol=1e-13)


def test_seeds_and_ids_give_independent_noise() -> None:
    ids = np.arange(50_000)
    streams = [gumbel(0, ids), gumbel(1, ids), gumbel(2**32, ids), gumbel(0, ids + 2**32)]
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 0.02
