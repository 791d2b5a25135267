from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.training.descent import Descent, rate  # noqa: E402


def test_the_rate_rises_over_a_twentieth_then_falls_to_zero():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert rates[-1] < 0.001
    assert rate(0, 1) == 1.0


def test_a_restored_descent_takes_the_same_steps():
    def descend(steps, stop):
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        descent = Descent([{"params": [weight], "peak": 0.1}], steps)
        for step in range(steps):
            if step == stop:
                state = {"weight": weight.detach().clone(), "moments": descent.state()}
                weight = torch.nn.Parameter(state["weight"])
                descent = Descent([{"params": [weight], "peak": 0.1}], steps)
                descent.restore(state["moments"], step)
            descent.step((weight**2).sum())
        return weight.detach()

    assert torch.equal(descend(12, stop=None), descend(12, stop=7))


def test_a_loss_that_is_not_finite_stops_the_run():
    weight = torch.nn.Parameter(torch.tensor(1.0))
    descent = Descent([{"params": [weight], "peak": 0.1}], 3)
    with pytest.raises(UsageError, match=r"the loss is nan at step 1 of 3.*Lower the learning rate"):
        descent.step(weight * float("nan"))
