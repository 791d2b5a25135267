"""DropoutNet (Volkovs, Yu and Poutanen, NeurIPS 2017): one net for items with and without interactions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fllm_export.coldstart.content_models.content_model import Material, Scoring
from fllm_export.coldstart.content_models.fitting import fitted
from fllm_export.coldstart.content_models.layers import Scale, dense
from fllm_export.coldstart.early_stopping import epoch_generator
from fllm_export.progress import Progress, silent


@dataclass(frozen=True)
class DropoutNet:
    """Two nets whose inner product reproduces the scores of a recommender, also where an item's vector is missing.

    With p_u and q_i the recommender's vectors, c_i the content and f, g the nets, training minimises the mean of

        (p_u . q_i - f(p_u) . g(m_i q_i, c_i))^2,  m_i = 0 for a share of the items of each step and 1 for the others

    over pairs of which half the weight is on each user's best items, as in the publication, because a list shows no
    others. Cold items have m = 0, warm ones m = 1. So f and g rank warm items too, in place of the recommender: that
    is the model's own protocol.

    Attributes:
        dim: of the vectors that score.
        hidden: width of the hidden layer of each net (linear, batch normalisation, tanh).
        dropped: the share of items whose q_i is left out.
        best: share of all items that are a user's best ones.
        rate: learning rate of Adam.
        batch: users and items of a step; all their pairs are in the loss.
        epochs: at most so many. An epoch takes each item once.
        patience: epochs without a better validation after which training stops.
        name: as tables call it.
    """

    dim: int = 200
    hidden: int = 500
    dropped: float = 0.5
    best: float = 0.1
    rate: float = 3e-3
    batch: int = 256
    epochs: int = 60
    patience: int = 6
    name: str = "DropoutNet"

    def fit(
        self, material: Material, *, seed: int = 0, workspace: Path | None = None, progress: Progress = silent
    ) -> Scoring:
        """Train, and return what the nets make of all users and items; see :class:`ContentModel`."""
        run = _Run(self, material, seed)
        return fitted(self, run, material, seed=seed, workspace=workspace, progress=progress)


class _Nets(nn.Module):
    def __init__(self, dim: int, content: int, options: DropoutNet, generator: torch.Generator) -> None:
        super().__init__()
        hidden = options.hidden
        self.users = nn.Sequential(
            dense(dim, hidden, generator), nn.BatchNorm1d(hidden), nn.Tanh(), dense(hidden, options.dim, generator)
        )
        self.items = nn.Sequential(
            dense(dim + content, hidden, generator),
            nn.BatchNorm1d(hidden),
            nn.Tanh(),
            dense(hidden, options.dim, generator),
        )


class _Run:
    """One training run."""

    def __init__(self, options: DropoutNet, material: Material, seed: int) -> None:
        self._options, self._seed = options, seed
        self._users, self._items = torch.from_numpy(material.users), torch.from_numpy(material.items)
        scale = Scale.of(material.content)
        self._content, self._cold = scale(material.content), scale(material.cold_content)
        self._user_inputs, self._item_inputs = Scale.of(material.users)(material.users), _sized(material.items)
        generator = torch.Generator().manual_seed(seed)
        self._unit, self._least = self._measured(generator)
        self.model = _Nets(self._users.shape[1], self._content.shape[1], options, generator)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=options.rate, fused=True)

    def _measured(self, generator: torch.Generator) -> tuple[float, Tensor]:
        """Return the size of scores, and the lowest score of each user's best items; both of drawn items."""
        drawn = torch.randperm(len(self._items), generator=generator)[: 4 * self._options.batch]
        scores = self._users @ self._items[drawn].T
        return float(scores.square().mean().sqrt().clamp_min(1e-12)), scores.quantile(1 - self._options.best, dim=1)

    def epoch(self, epoch: int) -> None:
        generator = epoch_generator(self._seed, epoch)
        size, users = self._options.batch, torch.empty(0, dtype=torch.int64)
        self.model.train()
        for items in torch.split(torch.randperm(len(self._items), generator=generator), size):
            if len(items) < 2:
                continue  # Batch normalisation needs two.
            if len(users) < min(size, len(self._users)):
                users = torch.randperm(len(self._users), generator=generator)
            chosen, users = users[:size], users[size:]
            kept = torch.rand(len(items), generator=generator) >= self._options.dropped
            loss = self._loss(chosen, items, kept)
            self.adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.adam.step()

    def _loss(self, users: Tensor, items: Tensor, kept: Tensor) -> Tensor:
        wanted = self._users[users] @ self._items[items].T
        best = wanted >= self._least[users, None]
        inputs = torch.cat([self._item_inputs[items] * kept[:, None], self._content[items]], 1)
        found = self.model.users(self._user_inputs[users]) @ self.model.items(inputs).T
        misses = (found - wanted / self._unit).square()
        shares = [misses[side].sum() / side.sum().clamp_min(1) for side in (best, ~best)]
        return torch.stack(shares).mean()

    def vectors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the nets make of users, training items and cold items."""
        self.model.eval()
        nothing = torch.zeros(len(self._cold), self._items.shape[1])
        with torch.no_grad():
            users = self.model.users(self._user_inputs)
            warm = self.model.items(torch.cat([self._item_inputs, self._content], 1))
            cold = self.model.items(torch.cat([nothing, self._cold], 1))
        return users.numpy(), warm.numpy(), cold.numpy()


def _sized(rows: np.ndarray) -> Tensor:
    """Return rows whose numbers have the mean square 1; not moved, as a missing row is one of zeros."""
    return torch.from_numpy(rows / max(float(np.sqrt(np.square(rows).mean())), 1e-12))
