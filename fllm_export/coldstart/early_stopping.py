"""Training that stops when validation does not improve, and that continues where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fllm_export.coldstart.training_state import TrainingState
from fllm_export.progress import Progress


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return an epoch's own random numbers, so that a continued run draws what an unbroken one draws."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))


@dataclass(frozen=True)
class EarlyStopping:
    """When training ends.

    Attributes:
        epochs: at most so many.
        patience: epochs without a better measurement after which training stops.
    """

    epochs: int
    patience: int

    def train(
        self,
        model: nn.Module,
        adam: torch.optim.Optimizer,
        epoch: Callable[[int], None],
        measure: Callable[[], float],
        *,
        file: Path | None,
        key: str,
        stage: str,
        progress: Progress,
    ) -> None:
        """Train a model, and leave it with the parameters of the epoch that was measured best.

        Args:
            model: its parameters are measured before the first epoch too.
            adam: the optimiser of the parameters.
            epoch: trains the epoch of a number, the first one being 0.
            measure: what to stop by, on validation pairs; higher is better.
            file: what an interrupted run continues from; None for a run that keeps nothing.
            key: what tells this run from others.
            stage: what ``progress`` is told.
            progress: counts epochs.

        Raises:
            BundleError: the file is damaged.
        """
        state = TrainingState() if file is None else TrainingState.load(file, key, model, adam)
        while True:
            if len(state.history) == state.epoch:
                state.note(measure(), model.state_dict())
                if file is not None:
                    state.save(file, key, model, adam)
            progress(stage, state.epoch, self.epochs)
            if state.epoch == self.epochs or state.epoch - state.best_epoch >= self.patience:
                break
            epoch(state.epoch)
            state.epoch += 1
        model.load_state_dict(state.best)
