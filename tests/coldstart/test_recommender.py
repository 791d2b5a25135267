from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.coldstart import recommender as module  # noqa: E402
from fllm_export.coldstart.names import MODEL_NAMES  # noqa: E402
from fllm_export.coldstart.pseudo_pairs import PseudoPairs  # noqa: E402
from fllm_export.coldstart.recommender import BprRecommender  # noqa: E402
from fllm_export.coldstart.recommender_options import RecommenderOptions  # noqa: E402
from fllm_export.coldstart.training_pairs import TrainingPairs  # noqa: E402
from fllm_export.errors import BundleError, UsageError  # noqa: E402

from .small_loop import of_rows, random_dataset  # noqa: E402


def small(model, **changes):
    return BprRecommender(RecommenderOptions.default(model, **{"dim": 8, "batch": 64, "epochs": 4, **changes}))


def clustered():
    """Users and items of three kinds; each user likes most items of the own kind."""
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((30, 60)) < 0.7)
    own = users % 3 == items % 3
    rows = np.stack([users[own], items[own]], 1)
    held = generator.random(len(rows)) < 0.25
    return of_rows({"train": rows[~held], "warm_val": rows[held]}, 30, tuple(f"text {n}" for n in range(60)))


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_users_prefer_items_of_their_kind(model):
    pairs = TrainingPairs.of(clustered())
    found = small(model, scale=0.2, rate=0.02, epochs=20, patience=20).fit(pairs)
    scores = found.users @ found.items.T
    same = np.arange(30)[:, None] % 3 == np.arange(60) % 3
    order = (scores[:, :, None] > scores[:, None, :])[same[:, :, None] & ~same[:, None, :]]
    assert order.mean() > 0.97


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_seed_repeats_its_vectors_and_another_gives_others(model):
    pairs = TrainingPairs.of(random_dataset())
    one, same, other = (small(model).fit(pairs, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.users, same.users)
    assert np.array_equal(one.items, same.items)
    assert not np.array_equal(one.items, other.items)


class Stopped(Exception):
    """Raised in the middle of training."""


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_an_interrupted_run_ends_like_an_unbroken_one(model, tmp_path, monkeypatch):
    pairs = TrainingPairs.of(random_dataset())
    whole = small(model, patience=9).fit(pairs, seed=1)
    epochs = []
    trained = module._Run._epoch

    def stops(run, epoch):
        epochs.append(epoch)
        if len(epochs) == 3:
            raise Stopped
        trained(run, epoch)

    monkeypatch.setattr(module._Run, "_epoch", stops)
    with pytest.raises(Stopped):
        small(model, patience=9).fit(pairs, seed=1, workspace=tmp_path)
    continued = small(model, patience=9).fit(pairs, seed=1, workspace=tmp_path)
    assert epochs == [0, 1, 2, 2, 3]
    assert np.array_equal(whole.users, continued.users)
    assert np.array_equal(whole.items, continued.items)


def test_training_stops_by_patience_and_gives_the_best_epoch(monkeypatch):
    measured = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    seen = []
    monkeypatch.setattr(module._Validation, "ndcg", lambda _, users, items: seen.append(items.copy()) or next(measured))
    found = small("mf", epochs=9, patience=2).fit(TrainingPairs.of(random_dataset()))
    assert len(seen) == 4
    assert np.array_equal(found.items, seen[1])


def test_a_cold_item_with_pseudo_pairs_is_trained():
    dataset = random_dataset()
    pseudo = PseudoPairs([150], [[0, 10, 20]], [[0.2, 0.2, 0.2]])
    found = small("lightgcn", epochs=20, patience=20).fit(TrainingPairs.of(dataset, pseudo))
    assert found.item_ids.tolist() == [*dataset.item_ids[dataset.splits["train"].distinct_items].tolist(), 150]
    scores = found.users @ found.items[-1]
    assert scores[:3].mean() > scores[3:].mean()


def test_a_damaged_state_is_refused_by_name(tmp_path):
    (tmp_path / "mf-0.state").write_bytes(b"not safetensors")
    with pytest.raises(BundleError, match=r"mf-0\.state is damaged"):
        small("mf").fit(TrainingPairs.of(random_dataset()), workspace=tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"), [({"dim": 0}, "dim"), ({"rate": 0.0}, "rate"), ({"dropout": 1.0}, "dropout")]
)
def test_invalid_options_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        RecommenderOptions.default("mf", **changes)
    with pytest.raises(UsageError, match="model"):
        RecommenderOptions.default("als")
