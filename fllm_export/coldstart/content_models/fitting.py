"""Training a content model to its best epoch, as all of them are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from fllm_export.coldstart.content_models.content_model import ContentModel, Material, Rows, Scoring
from fllm_export.coldstart.early_stopping import EarlyStopping
from fllm_export.progress import Progress


class Stopped(ContentModel, Protocol):
    """A content model whose training is stopped by validation."""

    @property
    def epochs(self) -> int:
        """At most so many."""
        ...

    @property
    def patience(self) -> int:
        """Epochs without a better validation after which training stops."""
        ...


class Run(Protocol):
    """One training run of a content model."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def adam(self) -> torch.optim.Optimizer:
        """The optimiser of its parameters."""
        ...

    def epoch(self, epoch: int) -> None:
        """Train the epoch of a number, the first one being 0."""
        ...

    def vectors(self) -> tuple[Rows, Rows, Rows]:
        """Return the vectors of users, training items and cold items."""
        ...


def fitted(
    options: Stopped, run: Run, material: Material, *, seed: int, workspace: Path | None, progress: Progress
) -> Scoring:
    """Train, and return the vectors of the epoch that was validated best; the arguments of :class:`ContentModel`."""
    EarlyStopping(options.epochs, options.patience).train(
        run.model,
        run.adam,
        run.epoch,
        lambda: material.validation.measure(*run.vectors()),
        file=None if workspace is None else workspace / f"{options.name}-{seed}.state",
        key=material.key(options, seed),
        stage=f"training {options.name}, seed {seed}",
        progress=progress,
    )
    return Scoring(*run.vectors())
