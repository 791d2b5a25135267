from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.evaluation.metrics import Ranking  # noqa: E402
from fllm_export.link import EXPONENTIAL, LINKS  # noqa: E402
from fllm_export.training import full_lesson, lesson, taught_head  # noqa: E402
from fllm_export.training.full_lesson import FullLesson  # noqa: E402
from fllm_export.training.lesson import Pupil  # noqa: E402
from fllm_export.training.probabilities import LINK_GAIN  # noqa: E402
from fllm_export.training.taught_head import SHARES, TaughtHead  # noqa: E402

USERS, ITEMS, COLD, DIM = 120, 200, 150, 8


def world(noise=0.0, shown=2):
    """Items with a direction each, users who like items near theirs, and rows that know only some dimensions."""
    generator = np.random.default_rng(5)
    z = generator.standard_normal((ITEMS + COLD, DIM)).astype(np.float32)
    tastes = generator.standard_normal((USERS, DIM)).astype(np.float32)
    scores = z @ tastes.T + 2 * generator.gumbel(size=(ITEMS + COLD, USERS))
    liked = [np.sort(np.argsort(-row)[:6]) for row in scores]
    rows = tastes.copy()
    rows[:, shown:] *= 0.2
    return Pupil(z[:ITEMS], rows, liked[:ITEMS], z[ITEMS:], liked[ITEMS:], 0.2)


def train(pupil, epochs, seed=0, links=(EXPONENTIAL,)):
    with TemporaryDirectory() as workspace:
        return TaughtHead.train(pupil, epochs, seed, Path(workspace), links=links)


def likelihood(scores, truth):
    logs = (
        scores
        - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True))
        - scores.max(1, keepdims=True)
    )
    return np.mean([logs[item, users].mean() for item, users in enumerate(truth)])


def test_it_learns_what_the_closed_form_does_not_know():
    pupil = world()
    taught = Ranking.of(np.argsort(-(pupil.validation @ pupil.rows.T), 1)[:, :20], pupil.truth)
    head = train(pupil, 40)
    assert head.ranking.ndcg > 1.05 * taught.ndcg
    served = pupil.validation @ head.rows.T + head.bias
    assert Ranking.of(np.argsort(-served, 1)[:, :20], pupil.truth).ndcg == pytest.approx(head.ranking.ndcg, abs=1e-6)
    assert head.share in SHARES
    assert 1 <= head.epoch <= 40
    around = [likelihood(served * factor, pupil.truth) for factor in (0.8, 1, 1.25)]
    assert around[1] > max(around[0], around[2])
    assert around[1] > -math.log(USERS) + 0.1


def test_the_same_seed_gives_the_same_head_and_another_one_another():
    pupil = world()
    first, again, other = (train(pupil, 2, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.bias, again.bias)
    assert not np.array_equal(first.rows, other.rows)


def test_it_starts_as_the_closed_form(monkeypatch):
    pupil = world()
    first = FullLesson(pupil, 1, seed=0)
    rows, closed = first.rows(first.head())
    assert torch.allclose(rows, closed, rtol=1e-5, atol=1e-6)
    assert not first.head().bias.any()
    ours, theirs = rows.numpy() @ pupil.vectors.T, pupil.rows @ pupil.vectors.T
    assert np.allclose(ours / ours.std(), theirs / theirs.std(), atol=1e-4)
    monkeypatch.setattr(lesson, "RANK", 3)
    narrow = FullLesson(pupil, 1, seed=0)
    fewer = narrow.rows(narrow.head())[0]
    cut = np.where(np.arange(DIM) < 3, pupil.rows, 0) @ pupil.vectors.T
    assert np.allclose(fewer.numpy() @ pupil.vectors.T / ours.std(), cut / theirs.std(), atol=1e-4)


def test_the_loss_is_the_cross_entropy_of_both_targets(monkeypatch):
    monkeypatch.setattr(full_lesson, "DROPOUT", 0.0)
    pupil = world()
    head = FullLesson(pupil, 1, seed=0)
    rows, closed = head.rows(head.head())
    items = torch.tensor([4, 17, 90])
    z = torch.from_numpy(pupil.vectors)[items]
    logs = (z @ rows.T).log_softmax(1)
    wanted = (1 - lesson.OBSERVED) * (lesson.SHARPNESS * (z @ closed.T)).softmax(1)
    for row, item in enumerate(items.tolist()):
        wanted[row, torch.from_numpy(pupil.liked[item])] += lesson.OBSERVED / len(pupil.liked[item])
    expected = -(wanted * logs).sum(1).mean()
    assert float(head.loss(items).detach()) == pytest.approx(float(expected), rel=1e-5)


def test_of_very_many_users_some_are_scored_in_a_step(monkeypatch):
    pupil = world()
    full = train(pupil, 40)
    monkeypatch.setattr(taught_head, "FULL_USERS_MOST", USERS - 1)
    monkeypatch.setattr(FullLesson, "__init__", None)
    sampled = train(pupil, 40)
    assert sampled.rows.shape == full.rows.shape
    assert not np.array_equal(sampled.rows, full.rows)
    assert sampled.ranking.ndcg > 0.97 * full.ranking.ndcg
    served = pupil.validation @ sampled.rows.T + sampled.bias
    ranked = Ranking.of(np.argsort(-served, 1)[:, :20], pupil.truth)
    assert ranked.ndcg == pytest.approx(sampled.ranking.ndcg, abs=1e-6)


def test_the_likeliest_link_is_taken():
    """Tails of the scores are long: a few users of each item are far above all others, and like it rarely."""
    pupil = world()
    rows = pupil.rows * np.exp(np.random.default_rng(2).standard_normal((USERS, 1))).astype(np.float32)
    plain, linked = (train(replace(pupil, rows=rows), 1, links=links) for links in ((EXPONENTIAL,), LINKS))
    assert plain.link == EXPONENTIAL
    assert linked.ranking == plain.ranking
    factor = linked.rows[0, 0] / plain.rows[0, 0]
    np.testing.assert_allclose(linked.rows, factor * plain.rows, rtol=1e-4)
    np.testing.assert_allclose(linked.bias, factor * plain.bias, rtol=1e-4, atol=1e-9)
    losses = {}
    for head in (plain, linked):
        scores = pupil.validation @ head.rows.T + head.bias
        m, total = head.link.log_sums(scores)
        logs = head.link.logits(scores) - (m + np.log(total))[:, None]
        losses[head.link] = -np.mean([logs[item, users].mean() for item, users in enumerate(pupil.truth)])
    assert linked.link != EXPONENTIAL
    assert losses[linked.link] < losses[EXPONENTIAL] - LINK_GAIN
    assert linked.to_json()["link"] == str(linked.link)


def test_nothing_is_left_in_the_workspace(tmp_path, monkeypatch):
    monkeypatch.setattr(taught_head, "FULL_USERS_MOST", USERS - 1)
    TaughtHead.train(world(), 1, 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_pairs_of_the_validation_items_only_choose_and_scale(monkeypatch):
    monkeypatch.setattr(taught_head, "SHARES", (1.0,))
    pupil = world()
    other = replace(pupil, truth=[np.array([item % USERS]) for item in range(COLD)])
    ours, theirs = (train(each, 1) for each in (pupil, other))
    factor = theirs.rows[0, 0] / ours.rows[0, 0]
    assert factor > 0
    assert abs(factor - 1) > 0.01
    assert np.allclose(theirs.rows, factor * ours.rows, rtol=1e-4)
    assert np.allclose(theirs.bias, factor * ours.bias, rtol=1e-4)


def test_stretched_vectors_give_the_same_head():
    pupil = world()
    stretch = np.exp(np.random.default_rng(1).standard_normal(DIM)).astype(np.float32)
    scaled = {"vectors": pupil.vectors * stretch, "rows": pupil.rows / stretch}
    other = replace(pupil, **scaled, validation=pupil.validation * stretch)
    ours, theirs = (train(each, 1) for each in (pupil, other))
    assert ours.ranking.ndcg == pytest.approx(theirs.ranking.ndcg, abs=1e-3)
    assert np.allclose(ours.rows, theirs.rows * stretch, rtol=1e-2, atol=1e-3)
