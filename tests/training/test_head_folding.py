"""What a trained head hands over to learn users: the conditional part of its own loss, in its own coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.table.fold_in import FoldIn  # noqa: E402
from fllm_export.table.head_learner import HeadLearner  # noqa: E402
from fllm_export.table.learner import Learner  # noqa: E402
from fllm_export.training import fitted_form, full_lesson, head_folding  # noqa: E402
from fllm_export.training.closed_form import Setting  # noqa: E402
from fllm_export.training.fitted_form import FittedForm, Vectors  # noqa: E402
from fllm_export.training.full_lesson import FullLesson  # noqa: E402
from fllm_export.training.head_folding import Folding  # noqa: E402
from fllm_export.training.losses import distribution_loss  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe  # noqa: E402
from fllm_export.training.setting_search import Validation  # noqa: E402
from fllm_export.training.user_sums import UserItems  # noqa: E402

from .test_taught_head import ITEMS, USERS, world  # noqa: E402


def trained():
    """A pupil, its lesson after an epoch, and what is handed over."""
    pupil = world()
    lesson = FullLesson(pupil, 1, seed=0)
    lesson.epoch(1, lambda *_: None)
    head = lesson.head()
    return pupil, lesson, head, Folding.of(pupil, lesson, head, 0.5)


def test_the_parts_give_the_rows_and_the_normalisers_of_the_head():
    pupil, lesson, head, folding = trained()
    rows, closed = lesson.rows(head)
    weights, rule = lesson._users.detach().numpy(), folding.rule
    made = (pupil.rows / folding.columns) @ rule.closed_map + weights @ rule.head_map
    np.testing.assert_allclose(made, (rows + 0.5 * closed).numpy(), rtol=0, atol=1e-5)
    scores = pupil.vectors @ rows.numpy().T
    np.testing.assert_allclose(rule.vectors @ weights.T, scores, rtol=0, atol=1e-4)
    logs = torch.from_numpy(scores + head.bias.numpy()).logsumexp(1).numpy()
    np.testing.assert_allclose(rule.log_normalisers, logs, rtol=1e-5)
    assert rule.counts.tolist() == [len(users) for users in pupil.liked]
    assert rule.strength == pytest.approx(head_folding.PRIOR * ITEMS / USERS)
    larger = folding.scaled(3.0)
    np.testing.assert_allclose(larger.rule.head_map, 3 * rule.head_map, rtol=1e-6)
    assert (larger.activity, larger.rule.scale) == (3 * folding.activity, 3.0)


def test_the_gradient_is_that_of_the_training_loss_for_one_user_more():
    """By automatic differentiation of the loss over all users, in which the user is a row like the others."""
    pupil, lesson, head, folding = trained()
    rule, liked = folding.rule, [3, 40, 41, 120]
    vectors = torch.from_numpy(rule.vectors).double()
    own = torch.linspace(-1, 1, vectors.shape[1], dtype=torch.float64, requires_grad=True)
    others = lesson._users.detach().double()
    scores = torch.cat([vectors @ others.T + head.bias.double(), (vectors @ own)[:, None] + 0.3], 1)
    # n_i are the users of training, so the new user has a share of 1 / n_i as each of them has.
    pull = sum(scores[item, USERS] / rule.counts[item] for item in liked)
    (pull - scores.logsumexp(1).sum()).backward()
    fold = FoldIn(rule.vectors, rule.log_normalisers, 1e-30)
    pulls = (rule.vectors[liked] / rule.counts[liked, None]).sum(0, dtype=np.float64)[None]
    found = fold.gradient(own.detach().numpy()[None], pulls, np.zeros((1, len(own))), np.array([0.3]))
    np.testing.assert_allclose(found[0], own.grad.numpy(), rtol=0, atol=1e-4 * float(own.grad.abs().max()))
    # And that sum over items is the published loss, where every item has its users' shares.
    rows, users = zip(*[(i, u) for i, users in enumerate(pupil.liked) for u in users], strict=True)
    trained_scores = scores[:, :USERS].detach()
    whole = distribution_loss(trained_scores, torch.tensor(rows), torch.tensor(users))
    pulled = sum(float(trained_scores[i, u]) / len(pupil.liked[i]) for i, u in zip(rows, users, strict=True))
    assert float(whole) * ITEMS == pytest.approx(float(trained_scores.logsumexp(1).sum()) - pulled, rel=1e-6)


def test_normalisers_of_very_many_users_are_estimated(monkeypatch):
    pupil, lesson, head, folding = trained()
    monkeypatch.setattr(head_folding, "_USERS_MOST", USERS // 2)
    some = Folding.of(pupil, lesson, head, 0.5).rule.log_normalisers
    assert not np.array_equal(some, folding.rule.log_normalisers)
    assert abs(float((some - folding.rule.log_normalisers).mean())) < 0.2


def test_a_form_with_a_head_hands_over_what_users_are_learned_with(tmp_path: Path, monkeypatch):
    generator = np.random.default_rng(3)
    items, cold, users = 120, 60, 90
    x = generator.standard_normal((items + cold, 16)).astype(np.float32)
    scores = x @ generator.standard_normal((16, users)) + 2 * generator.gumbel(size=(items + cold, users))
    liked = [np.sort(np.argsort(-row)[:8]) for row in scores]
    pairs = np.array([(user, item) for item in range(items) for user in liked[item]])
    histories = UserItems.of(*np.unique(pairs, axis=0).T, users)
    vectors = Vectors(x[:items], Validation(x[items:], liked[items:]), histories, 0)
    monkeypatch.setattr(fitted_form, "_HEAD_GAIN", 0.0)  # take the head in any case
    monkeypatch.setattr(full_lesson, "DROPOUT", 0.0)
    fitted = FittedForm.of(vectors, Setting(), ClosedFormRecipe(head_epochs=3), tmp_path)
    rule = fitted.rule(np.arange(items), histories, bias=True)
    assert rule.head is not None
    learner = HeadLearner.of(Learner.of(rule.item_ids, rule.contributions, rule.user_power, rule.activity), rule.head)
    learned, trained_rows = learner.rows(rule.starts, rule.items), fitted.rows(histories)
    z = fitted.form.item_vectors(x[items:]).astype(np.float32)
    theirs, ours = z @ trained_rows.T, z @ learned.T
    # A head trained for some steps and the maximum for each user are not the same, but nearly so.
    assert np.corrcoef(ours.reshape(-1), theirs.reshape(-1))[0, 1] > 0.9
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=0.4)
