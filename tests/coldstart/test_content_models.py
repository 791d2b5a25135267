from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.coldstart.content_models import clcrec, dropout_net  # noqa: E402
from fllm_export.coldstart.content_models.catalogue import CONTENT_MODELS  # noqa: E402
from fllm_export.coldstart.content_models.clcrec import Clcrec  # noqa: E402
from fllm_export.coldstart.content_models.content_file import ContentFile  # noqa: E402
from fllm_export.coldstart.content_models.content_model import Material  # noqa: E402
from fllm_export.coldstart.content_models.dropout_net import DropoutNet  # noqa: E402
from fllm_export.coldstart.pseudo_sources import cold_items  # noqa: E402
from fllm_export.errors import BundleError  # noqa: E402
from fllm_export.evaluation.dataset import Pairs  # noqa: E402

from .small_loop import of_rows  # noqa: E402

USERS, WARM, HELD, TASTE = 60, 240, 30, 6
SMALL = {
    "DropoutNet": (DropoutNet(dim=TASTE, hidden=64, batch=64, rate=1e-2, epochs=40, patience=40), dropout_net),
    "CLCRec": (Clcrec(hidden=64, negatives=32, batch=128, rate=1e-2, epochs=15, patience=15), clcrec),
}


@dataclass(frozen=True)
class World:
    """A data set in which content tells an item's place, and the recommender that knows the places of warm items."""

    dataset: object
    users: np.ndarray
    items: np.ndarray
    content: np.ndarray

    def material(self, dataset=None):
        data = dataset or self.dataset
        return Material.of(data, self.users, self.items, self.content, cold_items(self.dataset))


@pytest.fixture(scope="module")
def world():
    """Each item is liked by the sixth of the users who score it highest."""
    generator = np.random.default_rng(0)
    users = generator.standard_normal((USERS, TASTE)).astype(np.float32)
    items = generator.standard_normal((WARM + 2 * HELD, TASTE)).astype(np.float32)
    content = items @ generator.standard_normal((TASTE, 12)).astype(np.float32)
    splits = {name: [] for name in ("train", "warm_val", "cold_val", "cold_test")}
    for item, scores in enumerate(items @ users.T):
        for rank, user in enumerate(np.argsort(-scores)[: USERS // 6]):
            warm = "warm_val" if rank == 3 else "train"
            splits[warm if item < WARM else "cold_val" if item < WARM + HELD else "cold_test"].append((user, item))
    data = of_rows({name: np.array(rows) for name, rows in splits.items()}, USERS, tuple("t" * len(items)))
    items[WARM:] = np.nan  # A recommender has no vectors of cold items, so nobody may use them.
    return World(data, users, items, content)


def hits(world, scoring):
    """Return the share of each cold_test item's users among the users who score it highest."""
    pairs = world.dataset.splits["cold_test"]
    scores = scoring.cold[HELD:] @ scoring.users.T
    found = np.argsort(-scores, axis=1)[:, : USERS // 6]
    return np.mean(
        [(found[item - WARM - HELD] == user).any() for user, item in zip(pairs.users, pairs.items, strict=True)]
    )


@pytest.mark.parametrize("name", SMALL)
def test_content_finds_the_users_of_cold_items(world, name):
    scoring = SMALL[name][0].fit(world.material())
    assert (len(scoring.users), len(scoring.warm), len(scoring.cold)) == (USERS, WARM, 2 * HELD)
    assert hits(world, scoring) > 0.5, "a sixth would be chance"
    shuffled = replace(world, content=np.random.default_rng(1).permutation(world.content))
    assert hits(world, SMALL[name][0].fit(shuffled.material())) < 0.35


@pytest.mark.parametrize("name", SMALL)
def test_no_cold_pair_enters_training(world, name):
    """All cold pairs are exchanged; validation cannot stop a run that is as long as its patience."""
    model = replace(SMALL[name][0], epochs=3)
    material = world.material()
    assert material.pairs.items.max() < WARM
    assert len(material.pairs) == len(world.dataset.splits["train"])
    other = {
        split: Pairs((pairs.users + 7) % USERS, pairs.items) if split.startswith("cold") else pairs
        for split, pairs in world.dataset.splits.items()
    }
    exchanged = world.material(replace(world.dataset, splits=other))
    ends = []
    for each in (material, exchanged):
        last = replace(each, validation=Rising())
        ends.append(model.fit(last, seed=2))
    for part in ("users", "warm", "cold"):
        assert np.array_equal(getattr(ends[0], part), getattr(ends[1], part))
    without = {**world.dataset.splits, "cold_test": Pairs(np.empty(0, np.int64), np.empty(0, np.int64))}
    whole, blind = (model.fit(each) for each in (material, world.material(replace(world.dataset, splits=without))))
    assert np.array_equal(whole.cold, blind.cold), "cold_test decides neither what is trained nor when it ends"


class Rising:
    """A validation by which the last epoch is the best."""

    def __init__(self):
        self.measured = 0

    def measure(self, users, warm, cold):
        self.measured += 1
        return float(self.measured)

    def digest(self):
        return b""


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_repeats_its_vectors_and_another_gives_others(world, name):
    model = replace(SMALL[name][0], epochs=2)
    one, same, other = (model.fit(world.material(), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.cold, same.cold)
    assert np.array_equal(one.users, same.users)
    assert not np.array_equal(one.cold, other.cold)


class Stopped(Exception):
    """Raised in the middle of training."""


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupted_run_ends_like_an_unbroken_one(world, name, tmp_path, monkeypatch):
    model, module = replace(SMALL[name][0], epochs=4), SMALL[name][1]
    whole = model.fit(world.material(), seed=1)
    epochs, trained = [], module._Run.epoch

    def stops(run, epoch):
        epochs.append(epoch)
        if len(epochs) == 3:
            raise Stopped
        trained(run, epoch)

    monkeypatch.setattr(module._Run, "epoch", stops)
    with pytest.raises(Stopped):
        model.fit(world.material(), seed=1, workspace=tmp_path)
    continued = model.fit(world.material(), seed=1, workspace=tmp_path)
    assert epochs == [0, 1, 2, 2, 3]
    for part in ("users", "warm", "cold"):
        assert np.array_equal(getattr(whole, part), getattr(continued, part))


def test_validation_measures_warm_and_cold_lists(world):
    validation = world.material().validation
    truth = np.full((WARM + 2 * HELD, TASTE), 0, np.float32)
    truth[:WARM] = world.items[:WARM]
    cold = np.linalg.lstsq(world.content[:WARM], world.items[:WARM], rcond=None)[0]
    cold = (world.content[WARM:] @ cold).astype(np.float32)
    best = validation.measure(world.users, truth[:WARM], cold)
    assert best > 0.5
    assert validation.measure(world.users, truth[:WARM], np.zeros_like(cold)) < best - 0.1
    assert validation.measure(world.users, np.zeros_like(truth[:WARM]), cold) < best - 0.1


def test_dropout_net_scores_warm_items_better_with_their_vectors(world):
    scoring = SMALL["DropoutNet"][0].fit(world.material())
    wanted = world.users @ world.items[:WARM].T
    found = scoring.users @ scoring.warm.T
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.8


def test_a_content_file_is_used_under_its_key_alone(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    file = ContentFile(tmp_path, "one")
    assert not file.written()
    file.write(rows)
    assert file.written()
    assert np.array_equal(file.read(), rows)
    assert not ContentFile(tmp_path, "two").written()
    with pytest.raises(BundleError, match="made of other texts"):
        ContentFile(tmp_path, "two").read()
    (tmp_path / "content.safetensors").write_bytes(b"short")
    with pytest.raises(BundleError):
        file.read()


def test_the_catalogue_has_names_and_settings():
    assert [model.name for model in CONTENT_MODELS] == ["DropoutNet", "CLCRec"]
    assert all(f"rate={model.rate}" in repr(model) for model in CONTENT_MODELS)
