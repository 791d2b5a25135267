"""What sits on the encoder while it is trained: standardised input, mapper and user rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export.checkpoint.mapper import Mapper
from fllm_export.checkpoint.model import make_mapper
from fllm_export.checkpoint.spec import MapperKind
from fllm_export.training.losses import distribution_loss, guidance_loss
from fllm_export.training.vocabulary import Vocabulary

_RIDGE = 1e-2


class Head(nn.Module):
    """From the encoder's pooled state x [B, h] to z [B, d] and to every user's score.

    The mapper sees ``(x - centre) / scale``, a fixed affine map that gives inputs of length about 1 whatever the
    encoder; :meth:`folded_mapper` takes it back into the mapper's first layer.

    Attributes:
        targets: the guidance targets g_i, float32 [I, d]; a buffer, so nothing trains them.
    """

    centre: Tensor
    scale: Tensor
    targets: Tensor

    def __init__(self, kind: MapperKind, hidden: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.kind: MapperKind = kind
        self.mapper = make_mapper(kind, hidden, vocabulary.users.shape[1])
        self.user_rows = nn.Parameter(vocabulary.users.clone())
        self.register_buffer("centre", torch.zeros(hidden))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("targets", vocabulary.items, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return z, float32 [B, d], of pooled states [B, h], which can be on another device."""
        z: Tensor = self.mapper((x.to(self.centre.device) - self.centre) / self.scale)
        # make_mapper leaves this relu to the module around the mapper.
        return torch.relu(z) if self.kind == "linear_relu" else z

    def scores(self, x: Tensor) -> Tensor:
        """Return s = E z of all users, float32 [B, U]."""
        z: Tensor = self(x)
        return z @ self.user_rows.T

    def loss(self, x: Tensor, items: Tensor, users: list[Tensor], guidance: float) -> Tensor:
        """Return L_dist + guidance * L_guid.

        Args:
            x: pooled states, float32 [B, h], on any device.
            items: which items they are, int64 [B].
            users: for each item the users that liked it, one or more.
            guidance: the weight lambda.
        """
        z = self(x)
        rows = torch.repeat_interleave(torch.arange(len(users)), torch.tensor([len(liked) for liked in users]))
        distribution = distribution_loss(z @ self.user_rows.T, rows.to(z.device), torch.cat(users).to(z.device))
        return distribution + guidance * guidance_loss(z, self.targets[items.to(z.device)])

    @torch.no_grad()
    def fit(self, x: Tensor, items: Tensor) -> None:
        """Set centre and scale to the mean and the mean length of ``x``, and the last layer by ridge regression.

        The regression is on the guidance targets, so that the first epoch begins where guidance alone would end.

        Args:
            x: frozen pooled states of the training items, float32 [T, h], on any device.
            items: which items they are, int64 [T].
        """
        device = self.centre.device
        x, items = x.to(device), items.to(device)
        self.centre.copy_(x.mean(0))
        self.scale.copy_((x - self.centre).norm(dim=1).mean().clamp(min=1e-6))
        features = (x - self.centre) / self.scale
        last = self.mapper
        if isinstance(last, nn.Sequential):
            features, last = last[:-1](features), last[-1]
        assert isinstance(last, nn.Linear)
        ones = torch.ones(len(features), 1, device=device)
        design = torch.cat([features, ones], 1).double()
        gram = design.T @ design
        gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=device)
        solution = torch.linalg.solve(gram, design.T @ self.targets[items].double()).float()
        last.weight.copy_(solution[:-1].T)
        last.bias.copy_(solution[-1])

    def folded_mapper(self) -> Mapper:
        """Return the mapper that takes the encoder's own states: W' = W / scale, b' = b - W' centre."""
        weights = {name: value.detach().cpu().double().numpy() for name, value in self.mapper.state_dict().items()}
        prefix = "0." if self.kind == "mlp" else ""
        weights[f"{prefix}weight"] = weights[f"{prefix}weight"] / float(self.scale)
        centre = self.centre.cpu().double().numpy()
        weights[f"{prefix}bias"] = weights[f"{prefix}bias"] - weights[f"{prefix}weight"] @ centre
        return Mapper(self.kind, {name: value.astype(np.float32) for name, value in weights.items()})
