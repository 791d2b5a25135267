"""What an item becomes follows from the item alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fllm_export import Bundle, Runtime, UserTable
from fllm_export.coldstart import Onboarded, Onboarder, OnboardOptions, Vectors, onboard
from fllm_export.coldstart.onboard_options import METHODS
from fllm_export.errors import UsageError
from tests.linked import set_link

from .small_platform import DIM, SPACE, make_platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> tuple[UserTable, Vectors]:
    folder = tmp_path_factory.mktemp("platform")
    make_platform(folder)
    return UserTable.open(folder / "users", threads=1), Vectors.load(folder / "recommender.safetensors")


def items(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def same(one: Onboarded, other: Onboarded) -> None:
    for name in ("item_ids", "vectors", "user_ids", "shares", "real_users"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["topk", "sample"])
def test_cuts_into_batches_do_not_matter(platform: tuple[UserTable, Vectors], method: str, mode: str) -> None:
    table, recommender = platform
    onboarder = Onboarder(table, recommender, OnboardOptions(k=7, method=method, mode=mode, seed=3))
    z, ids = items(23), np.arange(500, 523)
    real = [list(range(n % 4)) for n in range(23)]
    whole = onboarder.onboard(z, ids, real)
    for size in (1, 4, 22):
        for at in range(0, 23, size):
            part = onboarder.onboard(z[at : at + size], ids[at : at + size], real[at : at + size])
            np.testing.assert_array_equal(part.vectors.view(np.uint32), whole.vectors[at : at + size].view(np.uint32))
            np.testing.assert_array_equal(part.user_ids, whole.user_ids[at : at + size])
            np.testing.assert_array_equal(part.shares, whole.shares[at : at + size])


def test_shares_are_the_probabilities_of_the_distribution_among_the_k(platform: tuple[UserTable, Vectors]) -> None:
    table, recommender = platform
    z = items(4)
    found = onboard(table, z, recommender, options=OnboardOptions(k=9))
    answer = table.topk(z, 9)
    probabilities = np.exp(answer.log_probs.astype(np.float64))
    np.testing.assert_array_equal(found.user_ids, answer.user_ids)
    np.testing.assert_allclose(found.shares, probabilities / probabilities.sum(1, keepdims=True), rtol=1e-4)
    assert found.vectors.shape == (4, SPACE)
    assert found.generation == table.generation
    uniform = onboard(table, z, recommender, options=OnboardOptions(k=9, weights="uniform"))
    np.testing.assert_allclose(uniform.shares, 1 / 9)


def test_shares_follow_the_link_of_the_table(platform: tuple[UserTable, Vectors], tmp_path: Path) -> None:
    table, recommender = platform
    shutil.copytree(table.directory, tmp_path / "users")
    set_link(tmp_path / "users", 2)
    powers = UserTable.open(tmp_path / "users")
    found = onboard(powers, items(4), recommender, options=OnboardOptions(k=9))
    weights = 1 + np.maximum(table.topk(items(4), 9).scores.astype(np.float64), 0) ** 2
    np.testing.assert_allclose(found.shares, weights / weights.sum(1, keepdims=True), rtol=1e-6)


def test_pseudo_users_score_an_item_above_others(platform: tuple[UserTable, Vectors]) -> None:
    table, recommender = platform
    for method in METHODS:
        found = onboard(table, items(30), recommender, options=OnboardOptions(method=method))
        scores = recommender.users @ found.vectors.T
        own = np.stack([scores[recommender.user_places(users), n] for n, users in enumerate(found.user_ids)])
        # The recommender's space shows half of what the table knows; without it the mean would be 0.
        assert np.mean((own.mean(1) - scores.mean(0)) / scores.std(0)) > 0.5


def test_real_users_take_over(platform: tuple[UserTable, Vectors]) -> None:
    table, recommender = platform
    z = np.concatenate([items(1, 1), items(1, 2)])
    crowd = list(range(0, 600, 2))
    few = onboard(table, z, recommender, options=OnboardOptions(half_at=1.0)).vectors
    many = onboard(table, z, recommender, real_users=[crowd, crowd], options=OnboardOptions(half_at=1e-6)).vectors
    # With the same real users two items are the same, whatever their pseudo-users.
    assert np.linalg.norm(many[0] - many[1]) < 1e-3 * np.linalg.norm(few[0] - few[1])


def test_users_whom_the_recommender_does_not_know_are_never_chosen(platform: tuple[UserTable, Vectors]) -> None:
    table, recommender = platform
    z = items(6)
    best = np.unique(table.topk(z, 3).user_ids)
    kept = ~np.isin(recommender.user_ids, best)
    smaller = Vectors(recommender.user_ids[kept], recommender.users[kept], recommender.item_ids, recommender.items)
    found = onboard(table, z, smaller, real_users=[[int(best[0])]] * 6)
    assert not np.isin(found.user_ids, best).any()
    assert (found.real_users == 0).all()
    strangers = Vectors(recommender.user_ids + 10_000, recommender.users, recommender.item_ids, recommender.items)
    with pytest.raises(UsageError, match="knows 0 users"):
        Onboarder(table, strangers)


def test_deleted_users_are_neither_known_nor_unknown(platform: tuple[UserTable, Vectors], tmp_path: Path) -> None:
    whole, recommender = platform
    shutil.copytree(whole.directory, tmp_path / "users")
    table = UserTable.open(tmp_path / "users", threads=1)
    few = Vectors(np.arange(110), recommender.users[:110], recommender.item_ids, recommender.items)
    table.delete(np.concatenate([np.arange(100), np.arange(500, 600)]))
    with pytest.raises(UsageError, match="knows 10 users of the user table"):
        Onboarder(table, few, OnboardOptions(k=20))
    onboarder = Onboarder(table, few, OnboardOptions(k=10))
    assert onboarder.unknown_users == 390
    found = onboarder.onboard(items(3))
    assert all(np.array_equal(np.sort(row), np.arange(100, 110)) for row in found.user_ids)


def test_texts_of_a_bundle(tiny_bundle: Bundle, item_texts: list[str]) -> None:
    runtime = Runtime.open(tiny_bundle.path, threads=1)
    ids = np.sort(np.concatenate([ids for ids, _ in runtime.users.decoded()]))
    generator = np.random.default_rng(0)
    recommender = Vectors(
        ids, generator.standard_normal((len(ids), 6)), np.arange(20), generator.standard_normal((20, 6))
    )
    onboarder = Onboarder(runtime, recommender, OnboardOptions(k=5))
    assert onboarder.takes_texts
    texts = item_texts[:9]
    whole = onboarder.onboard(texts)
    np.testing.assert_array_equal(whole.user_ids, runtime.topk(texts, 5).user_ids)
    parts = [onboarder.onboard([text]) for text in texts]
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), whole.vectors)
    assert set(whole.timings_ms) == {"encode", "select", "update"}
    assert len(onboarder.encoder_sha256) == 64


def test_arguments_are_checked(platform: tuple[UserTable, Vectors]) -> None:
    table, recommender = platform
    with pytest.raises(UsageError, match="real_users has 1 lists"):
        onboard(table, items(2), recommender, real_users=[[1]])
    with pytest.raises(UsageError, match="item_ids"):
        onboard(table, items(2), recommender, item_ids=[1])
    with pytest.raises(UsageError, match="user_degrees"):
        Onboarder(table, recommender, user_degrees=np.zeros(600, np.int64))


def test_the_package_names_what_it_offers(tmp_path: Path) -> None:
    import fllm_export.coldstart as coldstart

    assert all(hasattr(coldstart, name) for name in coldstart.__all__)
    with pytest.raises(AttributeError, match="no attribute 'onbord'"):
        coldstart.onbord  # noqa: B018
