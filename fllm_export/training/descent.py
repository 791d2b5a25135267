"""AdamW with a learning rate that rises linearly, then falls along a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from fllm_export.errors import UsageError

# Share of the steps in which the learning rate rises to its full value.
_RISING_SHARE = 0.05


class Descent:
    """The optimiser of a known number of steps; the learning rate depends on the step's number alone.

    Args:
        groups: each with ``params`` and their highest learning rate ``peak``.
        total: steps in all.
        scaler: scales the loss where gradients are float16; None leaves it as it is.
    """

    def __init__(self, groups: list[dict[str, Any]], total: int, scaler: GradScaler | None = None) -> None:
        self.total = total
        self.done = 0
        self._scaler = GradScaler(enabled=False) if scaler is None else scaler
        self._peaks = [group["peak"] for group in groups]
        self._optimizer = torch.optim.AdamW(
            [{"params": group["params"]} for group in groups], lr=0.0, weight_decay=0.0, fused=True
        )

    def step(self, loss: Tensor) -> float:
        """Take one step down the gradient of ``loss``; return its value.

        Raises:
            UsageError: the loss is not finite.
        """
        return self.step_of([loss])

    def step_of(self, losses: Iterable[Tensor]) -> float:
        """Take one step down the gradient of a sum of losses; return its value.

        Each loss is followed back before the next one is computed, so memory holds the graph of one.

        Raises:
            UsageError: a loss is not finite.
        """
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate(self.done, self.total)
        self._optimizer.zero_grad()
        value = sum(self._followed(loss) for loss in losses)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.done += 1
        return value

    def _followed(self, loss: Tensor) -> float:
        """Add the gradient of a loss to that of the step; return the loss's value."""
        value = loss.item()
        if not math.isfinite(value):
            raise UsageError(
                f"the loss is {value} at step {self.done + 1} of {self.total}",
                expected="a finite number",
                fix="Lower the learning rate",
            )
        torch.autograd.backward(self._scaler.scale(loss))
        return value

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first group in the last step."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    def state(self) -> dict[str, Any]:
        """Return the optimiser's moments and the scale of the loss, for :meth:`restore`."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any] | None, done: int) -> None:
        """Go on after ``done`` steps with the moments of :meth:`state`, or begin with none."""
        if state is not None:
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
        self.done = done


def rate(step: int, total: int) -> float:
    """Return the share of the highest learning rate at a step, counted from 0."""
    rising = max(1, round(_RISING_SHARE * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
