"""What both content models are built of: layers that begin with numbers of a seed, and inputs of like size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export.coldstart.content_models.content_model import Rows


def dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with weights by Glorot and Bengio (2010) and biases of 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True)
class Scale:
    """Moves rows by a mean and divides them by one number, so that their numbers have the mean square 1.

    Attributes:
        mean: float32 [d].
        size: the number.
    """

    mean: Rows
    size: float

    @classmethod
    def of(cls, rows: Rows) -> Scale:
        """Measure training rows, float32 [n, d]."""
        mean = rows.mean(0)
        return cls(mean, max(float(np.sqrt(np.square(rows - mean).mean())), 1e-12))

    def __call__(self, rows: Rows) -> Tensor:
        """Return scaled rows, float32 [n, d]."""
        return torch.from_numpy(np.ascontiguousarray((rows - self.mean) / self.size, dtype=np.float32))
