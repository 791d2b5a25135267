"""Users and items that are drawn like those of real tables."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is not installed

from benchmarks.native import likeness, profile
from benchmarks.native.population import PROFILES, Population
from benchmarks.native.profile import Profile, Taste

TASTE = Taste(interests=2, sharpness=4.0, log_size=3.0, log_spread=0.5)


@pytest.fixture(scope="module")
def items():
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((20, 12), dtype=np.float32)
    return centres[generator.integers(0, 20, 900)] + 0.3 * generator.standard_normal((900, 12), dtype=np.float32)


@pytest.mark.parametrize("kind", PROFILES)
def test_rows_of_a_profile_come_again_and_follow_no_chunks(kind):
    population = Population(kind, 500, 96, seed=3)
    rows = population.all_rows()
    assert rows.shape == (500, 96)
    assert np.isfinite(rows).all()
    assert np.array_equal(rows, Population(kind, 500, 96, seed=3).all_rows())
    assert not np.array_equal(rows, Population(kind, 500, 96, seed=4).all_rows())
    assert population.items(7).shape == (7, 96)


@pytest.mark.parametrize("kind", PROFILES)
def test_scores_have_the_tail_that_real_ones_have(kind):
    """A real item's best user lies five or more deviations above the mean; of Gaussian rows 3.7 of 5,000."""
    population = Population(kind, 5_000, 128, seed=0)
    found = likeness.facts(population.all_rows(), population.items(32))
    gaussian = Population("gaussian", 5_000, 128, seed=0)
    plain = likeness.facts(gaussian.all_rows(), gaussian.items(32))
    assert plain["best"] < 4.5
    assert found["best"] > 5


def test_a_profile_has_no_more_dimensions_than_its_table():
    with pytest.raises(ValueError, match="at most 256 dimensions, not 384"):
        Population("citeulike-a", 10, 384, seed=0)


def test_items_keep_their_moments_and_users_their_sizes(items):
    drawn = Profile.of_items(items, TASTE)
    generator = np.random.default_rng(1)
    again = drawn.items(generator, 50_000, 12).astype(np.float64)
    values = np.linalg.eigvalsh(items.T.astype(np.float64) @ items)[::-1] / len(items)
    found = np.square(again).mean(0)
    assert np.allclose(found, values, rtol=0.1, atol=0.02 * values[0])
    rows = drawn.users(generator, 2_000, 12)
    assert rows.shape == (2_000, 12)
    assert np.isfinite(rows).all()


def test_a_users_interests_make_some_items_score_far_above_others(items):
    best = []
    for sharpness in (0.5, 8.0):
        one = Profile.of_items(items, Taste(1, sharpness, 3.0, 0.5))
        best.append(likeness.facts(*likeness.draw(one, 3_000))["best"])
    assert best[1] > 1.2 * best[0]


def test_a_saved_profile_draws_the_same(items, tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "DIRECTORY", tmp_path)
    whole = Profile.of_items(items, TASTE)
    path = whole.save("mine")
    assert path.parent == tmp_path
    read = Profile.load("mine")
    assert read.taste == TASTE
    drawn = [each.users(np.random.default_rng(5), 50, 12) for each in (whole, read)]
    assert np.allclose(*drawn, rtol=0.02, atol=0.02 * np.abs(drawn[0]).max())


def test_tables_of_the_fitted_taste_resemble_the_one_that_was_given(items):
    made = Profile.of_items(items, Taste(1, 7.0, 3.0, 0.5))
    rows = made.users(np.random.default_rng(2), 3_000, 12)
    sizes = np.exp(3.0 + 0.5 * np.random.default_rng(3).standard_normal(3_000))
    axes = np.linalg.eigh(items.T.astype(np.float64) @ items)[1][:, ::-1].astype(np.float32)
    asked = (items @ axes)[:96]
    found = likeness.fit(rows, items, asked, sizes)
    wanted = likeness.facts(rows, asked)
    assert found.taste.interests == 1
    distances = [
        likeness.distance(likeness.drawn(each, 3_000), wanted) for each in (found, replace(found, taste=TASTE))
    ]
    assert distances[0] < 0.5
    assert distances[0] < distances[1]
