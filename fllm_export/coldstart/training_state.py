"""A training run on disk: what an interrupted run continues from, replaced after each epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fllm_export.errors import BundleError
from fllm_export.files import publish

_OPTIMIZER, _BEST, _MODEL = "adam", "best", "model"


@dataclass
class TrainingState:
    """How far training is.

    Attributes:
        epoch: finished epochs.
        history: what is measured on validation pairs before training and after each epoch; higher is better.
        best_epoch: the epoch with the highest.
        best: parameters after it.
    """

    epoch: int = 0
    history: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    def note(self, measured: float, parameters: dict[str, Tensor]) -> None:
        """Take in the measurement of an epoch; equal ones do not replace an earlier best."""
        if not self.history or measured > max(self.history):
            self.best_epoch, self.best = self.epoch, {name: value.clone() for name, value in parameters.items()}
        self.history.append(measured)

    def save(self, file: Path, key: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Replace the file."""
        tensors = {f"{_BEST}.{name}": value for name, value in self.best.items()}
        tensors |= {f"{_MODEL}.{name}": value for name, value in model.state_dict().items()}
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{_OPTIMIZER}.{number}.{name}": value for name, value in moments.items()}
        facts = {"key": key, "epoch": self.epoch, "history": self.history, "best_epoch": self.best_epoch}
        whole = {name: value.detach().contiguous() for name, value in tensors.items()}
        with publish(file) as out:
            out.write(save(whole, {"state": json.dumps(facts)}))

    @classmethod
    def load(cls, file: Path, key: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Continue a run of the same ``key``: fill model and optimiser. A file of another key is not read.

        Raises:
            BundleError: the file is damaged.
        """
        if not file.is_file():
            return cls()
        try:
            with safe_open(file, framework="pt") as tensors:
                facts = json.loads((tensors.metadata() or {}).get("state", "{}"))
                if facts.get("key") != key:
                    return cls()
                found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            model.load_state_dict(_part(found, _MODEL))
            _fill(optimizer, _part(found, _OPTIMIZER))
            best = _part(found, _BEST)
            return cls(int(facts["epoch"]), list(facts["history"]), int(facts["best_epoch"]), best)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise BundleError(
                f"{file} is damaged: {error}", expected="the state of a training run", fix="Delete it and train again"
            ) from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _fill(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in moments.items():
        number, moment = name.split(".", 1)
        state.setdefault(int(number), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
