from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.training.sampled_head import SampledHead, SampledSettings  # noqa: E402
from fllm_export.training.user_store import UserStore  # noqa: E402

USERS, ITEMS, DIM, WIDTH = 60, 24, 4, 6
SETTINGS = SampledSettings(batch=8, positives=3, sampled=16, hard=4, refresh=2, row_rate=0.05, item_rate=0.01)


@pytest.fixture(scope="module")
def world():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((USERS, WIDTH)).astype(np.float32)
    z = generator.standard_normal((ITEMS, WIDTH)).astype(np.float32)
    liked = [np.sort(np.argsort(-row)[: 2 + item % 5]) for item, row in enumerate(z @ rows.T)]
    return rows, z, liked


def head(world, path, settings=SETTINGS):
    rows, z, liked = world
    there = path.is_dir()
    store = UserStore.open(path) if there else UserStore.create(path, [rows[:, :DIM]], USERS, DIM)
    return SampledHead(store, z, liked, lambda users: rows[users], settings), store


def contents(store):
    return [np.concatenate(parts) for parts in zip(*store.chunks(), strict=True)]


def full_gradients(world, settings):
    """Loss of the whole softmax for all items, and the gradients of Q, t, the rows and the biases."""
    rows, z, liked = (world[0], torch.from_numpy(world[1]), world[2])
    e, b = torch.from_numpy(rows[:, :DIM].copy()).requires_grad_(), torch.zeros(USERS, requires_grad=True)
    q, t = torch.eye(WIDTH)[:DIM].clone().requires_grad_(), torch.zeros((), requires_grad=True)
    target = (1 - settings.mix) * torch.softmax(settings.sharpness * z @ torch.from_numpy(rows).T, 1)
    for item, users in enumerate(liked):
        target[item, users] += settings.mix / len(users)
    loss = -(torch.log_softmax(z @ q.T @ e.T * t.exp() + b, 1) * target).sum(1).mean()
    return loss.item(), torch.autograd.grad(loss, (q, t, e, b))


@pytest.mark.parametrize("mix", [0.5, 1.0])
def test_with_all_users_a_step_has_the_loss_and_gradients_of_the_full_softmax(world, tmp_path, monkeypatch, mix):
    everything = {"batch": ITEMS, "positives": USERS, "sampled": USERS, "dropout": 0.0, "hard": 0, "mix": mix}
    settings = dataclasses.replace(SETTINGS, **everything)
    trained, store = head(world, tmp_path / "store", settings)
    loss, (q, t, e, b) = full_gradients(world, settings)
    given = {}
    monkeypatch.setattr(store, "step", lambda users, rows, bias, rates: given.update(rows=rows, bias=bias))
    store.begin()
    assert trained.epoch() == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(trained.q.grad, q)
    torch.testing.assert_close(trained.log_scale.grad, t)
    columns = np.sqrt((world[1][:, :DIM] ** 2).mean(0))
    torch.testing.assert_close(given["rows"], e / torch.from_numpy(columns))
    torch.testing.assert_close(given["bias"], b)


def test_training_lowers_the_loss(world, tmp_path):
    losses = head(world, tmp_path / "store")[0].run(12)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1


def test_a_run_that_is_interrupted_gives_what_one_in_a_piece_gives(world, tmp_path, one_thread):
    whole, expected = head(world, tmp_path / "whole")
    whole.run(3)
    head(world, tmp_path / "parts")[0].run(1)

    def stop(stage, done, total):
        if stage == "softmax head" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        head(world, tmp_path / "parts")[0].run(3, stop)
    again, store = head(world, tmp_path / "parts")
    assert store.epochs == 1
    assert len(again.run(3)) == 2
    assert all(np.array_equal(a, b) for a, b in zip(contents(store), contents(expected), strict=True))
    assert torch.equal(again.q, whole.q)
    assert torch.equal(again.log_scale, whole.log_scale)


def test_queries_give_the_scores_that_are_trained(world, tmp_path):
    trained, store = head(world, tmp_path / "store", dataclasses.replace(SETTINGS, scale=2.0))
    rows = contents(store)[0]
    expected = 2 * (world[1][:, :DIM] @ rows.T)
    np.testing.assert_allclose(trained.queries(world[1]) @ rows.T, expected, rtol=1e-5, atol=1e-5)


def test_hard_negatives_are_searched_for_the_items_of_the_next_steps(world, tmp_path):
    searched = []

    def note(stage, done, total):
        if stage == "hard negatives":
            searched.append(total)

    head(world, tmp_path / "store")[0].run(1, note)
    # Three steps of eight items, and a search before every other step.
    assert searched == [16, 8]


def test_items_and_vectors_must_be_as_many(world, tmp_path):
    rows, z, liked = world
    store = UserStore.create(tmp_path / "store", [rows[:, :DIM]], USERS, DIM)
    for vectors in (z[:-1], z[:, : DIM - 1]):
        with pytest.raises(UsageError, match=r"z \(item vectors\) has the shape"):
            SampledHead(store, vectors, liked, lambda users: rows[users], SETTINGS)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"mix": 1.5}, {"row_rate": 0.0}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SampledSettings(**wrong)
