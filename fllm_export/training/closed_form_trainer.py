"""The default way: LoRA that makes items of the same users neighbours, and user rows in closed form on top."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import Positions
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress
from fllm_export.training.closed_form import Setting
from fllm_export.training.encoders import linear_layers
from fllm_export.training.fitted_form import FittedForm, Vectors
from fllm_export.training.lora_trainer import LoraTrainer
from fllm_export.training.material import Material
from fllm_export.training.neighbourhood import Neighbourhood
from fllm_export.training.recipe import ClosedFormRecipe
from fllm_export.training.run_state import RunState
from fllm_export.training.setting_search import Trial, Validation

_LOSS_ITEMS = 64
_SHARPNESS_RATE = 10.0
"""The learning rate of the neighbourhood's one number, as a multiple of LoRA's."""


class ClosedFormTrainer(LoraTrainer):
    """Epoch 0 is the closed form on the frozen encoder; each LoRA epoch is judged by the closed form on its vectors."""

    _recipe: ClosedFormRecipe

    def __init__(self, material: Material, recipe: ClosedFormRecipe, run: RunState, progress: Progress) -> None:
        _check_dim(recipe, material)
        super().__init__(material, recipe, linear_layers(material.encoder.encoder), run, progress)
        self._states = {name: states.clone() for name, states in self._frozen.items()}
        neighbourhood = Neighbourhood(self._frozen["items"], material.users, material.liked, recipe.seed)
        self._neighbourhood = neighbourhood.to(material.arithmetic.device)
        self._setting = torch.zeros(len(fields(Setting)), dtype=torch.float64)
        self._fitted: dict[int, FittedForm] = {}
        self._kept: int | None = None

    def _begin(self) -> None:
        began, found = time.monotonic(), self._frozen_trial
        items = np.arange(len(self.material.items))
        torch.manual_seed(self._recipe.seed)
        with torch.no_grad():
            parts = [items[first : first + _LOSS_ITEMS] for first in range(0, len(items), _LOSS_ITEMS)]
            losses = [float(self._loss(self._states["items"][torch.from_numpy(p)], p)) * len(p) for p in parts]
        self._keep(0, sum(losses) / len(items), self._taken(found), began, None)

    @property
    def _frozen_trial(self) -> Trial:
        """The best point of the grid on the frozen encoder, computed once in a run."""

        def compute() -> dict[str, Tensor]:
            best = self._vectors(self._frozen).best(progress=self._progress)
            numbers = [*best.setting.to_json().values(), best.precision, best.recall, best.ndcg]
            return {"numbers": torch.tensor(numbers, dtype=torch.float64)}

        numbers = self._run.tensors("grid", compute)["numbers"].tolist()
        return Trial(Setting(*numbers[:4]), *numbers[4:])

    def _vectors(self, states: dict[str, Tensor]) -> Vectors:
        validation = Validation(states["validation"].numpy(), self.material.truth)
        return Vectors(states["items"].numpy(), validation, self.material.users, self._recipe.seed)

    def _beside(self) -> tuple[nn.Module, float]:
        return self._neighbourhood, _SHARPNESS_RATE * self._recipe.learning_rate

    def _loss(self, states: Tensor, items: Positions) -> Tensor:
        return self._neighbourhood.loss(states, items)

    def _validate(self) -> Ranking:
        self._states = self.material.states("encoding")
        self._neighbourhood.renew(self._states["items"])
        return self._taken(self._vectors(self._states).best(progress=self._progress))

    def _taken(self, trial: Trial) -> Ranking:
        """Remember the setting of the states as they are, and return how it ranks."""
        self._setting.copy_(torch.tensor(list(trial.setting.to_json().values()), dtype=torch.float64))
        return Ranking(trial.precision, trial.recall, trial.ndcg, len(self.material.validation))

    def _weights(self) -> dict[str, Tensor]:
        states = {f"states.{name}": states for name, states in self._states.items()}
        return {**super()._weights(), **states, "setting": self._setting}

    @property
    def kept_epoch(self) -> int:
        """The epoch that becomes the checkpoint: once the heads are trained, that of the best candidate."""
        return super().kept_epoch if self._kept is None else self._kept

    def checkpoint(self, workspace: Path) -> Checkpoint:
        """Return the best candidate as a checkpoint; its adapter, if LoRA helped, lies in ``workspace``."""
        material, choice = self.material, self.material.choice
        # Without max_steps the frozen encoder stays a candidate: its head can be better than LoRA's.
        epochs = {self.kept_epoch} if self._recipe.max_steps is not None else {0, self.kept_epoch}
        with self._run.timed("closed_form"):
            self._fitted = {epoch: self._fit(epoch) for epoch in sorted(epochs)}
        self._kept = max(self._fitted, key=lambda epoch: self._fitted[epoch].ndcg)
        fitted = self._fitted[self._kept]
        rows, bias = fitted.rows(material.users), fitted.bias(material.users)
        biased = bool(bias.any())
        users = UserRows.from_array(rows, ids=material.dataset.user_ids, bias=bias if biased else None)
        adapter = self._adapter(workspace) if self._kept else None
        spec = replace(material.spec("kernel", fitted.form.dim), link=fitted.link)
        item_ids = material.dataset.item_ids[material.items]
        rule = fitted.rule(item_ids, material.users, bias=biased)
        return Checkpoint(spec, choice.path, adapter, fitted.form.mapper(), users, choice.features, rule)

    def _fit(self, epoch: int) -> FittedForm:
        """Return the closed form and its head on the states of an epoch; LoRA stays as that epoch has it."""
        if not epoch:
            states, setting = self._frozen, self._frozen_trial.setting
        else:
            self._run.restore(epoch, self._weights())
            states, setting = self._states, Setting(*self._setting.tolist())
        return FittedForm.of(self._vectors(states), setting, self._recipe, self._run.directory, self._progress)

    def findings(self) -> dict[str, Any]:
        """Return the candidates with their figures on cold_val, which one is kept, and what was chosen for it."""
        assert self._kept is not None
        found = {record.epoch: record.ndcg for record in self._run.records}
        return {
            "candidates": {name: _figures(ranking) for name, ranking in self._candidates().items()},
            "kept": _name(self._kept, head=self._fitted[self._kept].taught is not None),
            "lora_gain": round(found[super().kept_epoch] - found[0], 6),
            **self._fitted[self._kept].to_json(),
        }

    def _candidates(self) -> dict[str, Ranking]:
        candidates = {}
        for epoch, fitted in sorted(self._fitted.items()):
            candidates[_name(epoch, head=False)] = fitted.ranking
            if fitted.head is not None:
                candidates[_name(epoch, head=True)] = fitted.head.ranking
        return candidates


def _name(epoch: int, *, head: bool) -> str:
    """Return what a candidate is called."""
    if not epoch:
        return "head" if head else "closed form"
    return "lora + head" if head else "lora"


def _figures(ranking: Ranking) -> dict[str, float]:
    figures = {"precision": ranking.precision, "recall": ranking.recall, "ndcg": ranking.ndcg}
    return {name: round(value, 6) for name, value in figures.items()}


def _check_dim(recipe: ClosedFormRecipe, material: Material) -> None:
    """Refuse, before LoRA is trained, a dimension that no closed form of these items and users can have."""
    limits = {
        "training items": len(material.items),
        "landmarks": recipe.landmarks_of(len(material.items)),
        "users": int(np.count_nonzero(material.users.sizes)),
    }
    what, most = min(limits.items(), key=lambda limit: limit[1])
    if recipe.dim is not None and recipe.dim > most:
        raise UsageError(f"dim is {recipe.dim} and there are {most} {what}", expected=f"at most {most}")
