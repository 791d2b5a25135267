"""Features in torch: the steps between pooling and mapper of a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fllm_export.checkpoint.feature_spec import Activation
from fllm_export.checkpoint.features import TINY, Dense, Features

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid,
}


def unit_vectors(x: Tensor) -> Tensor:
    """Return x / |x|, [..., n], as :func:`fllm_export.checkpoint.features.unit_vectors` computes it.

    The result does not depend on the magnitude by which x is divided first, so no gradient flows through it.
    """
    scaled = x / x.detach().abs().amax(-1, keepdim=True).clamp(min=TINY)
    return scaled / scaled.square().sum(-1, keepdim=True).sqrt().clamp(min=TINY)


class FeatureLayers(nn.Sequential):
    """The steps in order: a ``nn.Linear`` for each dense step, a ``nn.Identity`` in the place of each normalisation.

    Parameter names are those of ``head.safetensors`` after the prefix ``features.``, such as ``0.weight``. The
    activations are in this module's forward and not in the layers, because LoRA adds its low-rank term to the forward
    of the module it wraps and could not be folded into W behind an activation.

    Args:
        steps: for each step the layer and its activation; for a normalisation None.

    Attributes:
        activations: the activation of each step; None for a normalisation.
    """

    def __init__(self, steps: Sequence[tuple[nn.Linear, Activation] | None]) -> None:
        super().__init__(*(nn.Identity() if step is None else step[0] for step in steps))
        self.activations: tuple[Activation | None, ...] = tuple(None if step is None else step[1] for step in steps)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, [B, width], of pooled states x, [B, hidden]."""
        for layer, activation in zip(self, self.activations, strict=True):
            x = unit_vectors(x) if activation is None else _ACTIVATIONS[activation](cast(Tensor, layer(x)))
        return x


def feature_layers(features: Features) -> FeatureLayers:
    """Return the features as a torch module, float32."""
    return FeatureLayers([_dense(step) if isinstance(step, Dense) else None for step in features.steps])


def _dense(step: Dense) -> tuple[nn.Linear, Activation]:
    made, taken = step.weight.shape
    layer = nn.Linear(taken, made)
    layer.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in step.tensors.items()})
    return layer, step.activation
