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


def test_a_step_of_parts_is_the_step_of_their_sum():
    def descend(parts):
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        descent = Descent([{"params": [weight], "peak": 0.1}], 4)
        values = [descent.step_of((weight**power).sum() * 0.5 for power in parts) for _ in range(4)]
        return weight.detach(), values

    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    whole = Descent([{"params": [weight], "peak": 0.1}], 4)
    values = [whole.step(((weight**2).sum() + (weight**4).sum()) * 0.5) for _ in range(4)]
    torch.testing.assert_close(descend((2, 4))[0], weight.detach())
    assert descend((2, 4))[1] == pytest.approx(values)
    assert descend((4,))[1] != pytest.approx(values)


def test_a_scaled_descent_keeps_its_scale_when_restored():
    def made():
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        return weight, scaler, Descent([{"params": [weight], "peak": 0.1}], 4, scaler)

    weight, scaler, descent = made()
    for _ in range(3):
        descent.step((weight**2).sum())
    assert scaler.get_scale() == 2048.0
    plain = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    unscaled = Descent([{"params": [plain], "peak": 0.1}], 4)
    for _ in range(3):
        unscaled.step((plain**2).sum())
    torch.testing.assert_close(weight.detach(), plain.detach())
    _, restored, again = made()
    again.restore(descent.state(), 3)
    assert restored.get_scale() == 2048.0
