"""A run of LoRA epochs over the training items, each kept on disk, the best one chosen on cold_val."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.evaluation.dataset import Positions
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress
from fllm_export.training.descent import Descent
from fllm_export.training.lora import add_lora, lora_training, save_adapter
from fllm_export.training.material import Material
from fllm_export.training.recipe import Recipe
from fllm_export.training.run_log import RunLog
from fllm_export.training.run_state import EpochRecord, RunState


class LoraTrainer(ABC):
    """The epochs; what is trained beside LoRA, and how it ranks, is the subclass's.

    Attributes:
        material: items, pairs and the encoder, which has LoRA where the recipe has epochs.
    """

    def __init__(
        self, material: Material, recipe: Recipe, targets: list[str], run: RunState, progress: Progress
    ) -> None:
        self.material, self._run, self._progress = material, run, progress
        self._recipe = recipe
        self._log = RunLog(None)
        self._per_epoch = -(-len(material.items) // recipe.batch)
        self._steps = int(min(recipe.epochs * self._per_epoch, recipe.max_steps or math.inf))
        self._frozen = run.tensors("frozen_states", lambda: material.states("frozen encoder"))
        if recipe.epochs:
            material.encoder.encoder = add_lora(material.encoder.encoder, recipe, targets)

    @abstractmethod
    def _begin(self) -> None:
        """Do what comes before the first LoRA epoch, and keep it as epoch 0."""

    @abstractmethod
    def _loss(self, states: Tensor, items: Positions) -> Tensor:
        """Return the loss of x, float32 [B, h] on any device, of some training items, by their places, int64 [B]."""

    @abstractmethod
    def _validate(self) -> Ranking:
        """Return how the model as it is ranks the users of the validation items, after a LoRA epoch."""

    @abstractmethod
    def _beside(self) -> tuple[nn.Module, float]:
        """Return what is trained beside LoRA, and its highest learning rate."""

    @abstractmethod
    def checkpoint(self, workspace: Path) -> Checkpoint:
        """Return the kept epoch as a checkpoint whose adapter lies in ``workspace``."""

    @abstractmethod
    def findings(self) -> dict[str, Any]:
        """Return what the report says of this way of training alone, JSON-ready; after :meth:`checkpoint`."""

    def run_epochs(self, log: RunLog) -> None:
        """Do what is not done yet, and log it.

        Raises:
            UsageError: the loss is no longer finite.
        """
        latest, self._log = self._run.latest, log
        log.begin(None if latest is None else self._last_step(latest))
        if latest is None:
            self._begin()
        else:
            self._run.restore(latest, self._weights())
        if self._recipe.epochs:
            self._fine_tune()

    @property
    def kept_epoch(self) -> int:
        """The epoch that becomes the checkpoint: the best one, or the last one of a run cut short by ``max_steps``."""
        return self._run.best if self._recipe.max_steps is None else self._run.records[-1].epoch

    def _fine_tune(self) -> None:
        recipe, encoder = self._recipe, self.material.encoder
        beside, peak = self._beside()
        groups = [
            {"params": [p for p in encoder.parameters() if p.requires_grad], "peak": recipe.learning_rate},
            {"params": list(beside.parameters()), "peak": peak},
        ]
        descent = Descent(groups, self._steps, self.material.arithmetic.scaler)
        first = self._run.latest or 0
        descent.restore(self._run.optimizer(first), self._last_step(first))
        for epoch in range(first + 1, -(-self._steps // self._per_epoch) + 1):
            if self._out_of_patience:
                break
            self._epoch(epoch, descent)

    @property
    def _out_of_patience(self) -> bool:
        """Whether the last epochs, as many as the recipe's patience, did not rank better than the best before."""
        latest = self._run.records[-1].epoch
        return self._recipe.max_steps is None and latest - self._run.best >= self._recipe.patience

    def _last_step(self, epoch: int) -> int:
        """Return how many LoRA steps are done when an epoch is done."""
        return min(epoch * self._per_epoch, self._steps)

    def _epoch(self, epoch: int, descent: Descent) -> None:
        recipe, material, began = self._recipe, self.material, time.monotonic()
        # A new seed an epoch: a resumed run draws what an uninterrupted one would have drawn.
        torch.manual_seed(recipe.seed + epoch)
        lora_training(material.encoder)
        batches = material.tokens.shuffled_batches(material.items, recipe.batch, (recipe.seed, epoch))
        batches = batches[: self._last_step(epoch) - descent.done]
        total, seen = 0.0, 0
        for items in batches:
            before = time.monotonic()
            loss = descent.step_of(self._losses(items))
            throughput = len(items) / (time.monotonic() - before)
            self._log.step(descent.done, loss, descent.learning_rate, throughput)
            total += loss * len(items)
            seen += len(items)
            self._progress("LoRA", descent.done, descent.total)
        material.encoder.eval()
        self._keep(epoch, total / seen, self._validate(), began, descent.state())

    def _losses(self, items: Positions) -> Iterator[Tensor]:
        """Yield the losses of the parts of a step's items, each scaled by its share of the items."""
        material = self.material
        for part in np.array_split(items, min(self._recipe.accumulation, len(items))):
            states = material.arithmetic.pooled(material.encoder, *material.tokens.batch(part))
            yield self._loss(states, material.places(part)) * (len(part) / len(items))

    def _keep(self, epoch: int, loss: float, ranking: Ranking, began: float, optimizer: dict[str, Any] | None) -> None:
        seconds = round(time.monotonic() - began, 1)
        loss, precision, recall, ndcg = (
            round(figure, 6) for figure in (loss, ranking.precision, ranking.recall, ranking.ndcg)
        )
        record = EpochRecord(epoch, loss, precision, recall, ndcg, seconds)
        # Before the epoch is kept: a run that stops between the two repeats the epoch, and the new log hides this one.
        self._log.epoch(self._last_step(epoch), record)
        self._run.save_epoch(record, self._weights(), optimizer)

    def _weights(self) -> dict[str, Tensor]:
        """Return everything that an epoch changes, by name; the tensors themselves, not copies."""
        trained = {f"encoder.{n}": p for n, p in self.material.encoder.named_parameters() if p.requires_grad}
        return {**trained, **{f"head.{name}": value for name, value in self._beside()[0].state_dict().items()}}

    def _adapter(self, workspace: Path) -> Path | None:
        """Write LoRA as it is, and return where; None where nothing is adapted."""
        return save_adapter(self.material.encoder.encoder, workspace / "adapter") if self._recipe.epochs else None
