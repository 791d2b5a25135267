"""CLCRec (Wei et al., ACM MM 2021): contrastive learning between an item's content and its collaborative vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fllm_export.coldstart.content_models.content_model import Material, Scoring
from fllm_export.coldstart.content_models.fitting import fitted
from fllm_export.coldstart.content_models.layers import Scale, dense
from fllm_export.coldstart.early_stopping import epoch_generator
from fllm_export.evaluation.baselines.known import require_scipy
from fllm_export.progress import Progress, silent


@dataclass(frozen=True)
class Clcrec:
    """Free vectors of users and items, and a net that makes an item's vector of its content.

    For a pair (u, i) of ``train`` and items N drawn uniformly, training minimises

        share * contrast(v_i, g(c_i); tau) + (1 - share) * contrast(p_u, x_i; 1) + decay (|p_u|^2 + |v_i|^2) / 2

    where contrast(a, b) = -ln (e^(a.b / tau) / sum over b and those of N of e^(a.b' / tau)), the first one by unit
    vectors, and x_i is v_i or, for a share of the items of each step, g(c_i). An item of N that the user likes is left
    out of the second. Vectors begin as those of the recommender. Warm items score by v, cold items by g: the model's
    own protocol, in which nothing of the recommender stays as it was.

    The publication draws 128 items per pair; here a step's pairs share N, which makes every product a product of
    matrices.

    Attributes:
        hidden: width of the net's hidden layer.
        negatives: number of items in N.
        temperature: tau.
        share: of the contrast between content and collaborative vector.
        replaced: the share of items that score by content in training.
        decay: weight of squared lengths.
        rate: learning rate of Adam.
        batch: pairs of a step.
        epochs: at most so many.
        patience: epochs without a better validation after which training stops.
        name: as tables call it.
    """

    hidden: int = 256
    negatives: int = 256
    temperature: float = 0.2
    share: float = 0.5
    replaced: float = 0.5
    decay: float = 1e-3
    rate: float = 3e-3
    batch: int = 1_024
    epochs: int = 40
    patience: int = 4
    name: str = "CLCRec"

    def fit(
        self, material: Material, *, seed: int = 0, workspace: Path | None = None, progress: Progress = silent
    ) -> Scoring:
        """Train, and return the vectors of users, warm and cold items; see :class:`ContentModel`.

        Raises:
            HardwareError: SciPy is not installed.
        """
        run = _Run(self, material, seed)
        return fitted(self, run, material, seed=seed, workspace=workspace, progress=progress)


class _Model(nn.Module):
    def __init__(self, material: Material, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        dim = material.items.shape[1]
        self.users = nn.Parameter(torch.from_numpy(material.users.copy()))
        self.items = nn.Parameter(torch.from_numpy(material.items.copy()))
        self.net = nn.Sequential(
            dense(material.content.shape[1], hidden, generator), nn.LeakyReLU(), dense(hidden, dim, generator)
        )


class _Run:
    """One training run."""

    def __init__(self, options: Clcrec, material: Material, seed: int) -> None:
        self._options, self._seed = options, seed
        scale = Scale.of(material.content)
        self._content, self._cold = scale(material.content), scale(material.cold_content)
        self._pairs = torch.from_numpy(material.pairs.users), torch.from_numpy(material.pairs.items)
        shape = (len(material.users), len(material.items))
        ones = np.ones(len(material.pairs), bool)
        sides = (material.pairs.users, material.pairs.items)
        self._likes = require_scipy("scipy.sparse").csr_matrix((ones, sides), shape=shape)
        self.model = _Model(material, options.hidden, torch.Generator().manual_seed(seed))
        self.adam = torch.optim.Adam(self.model.parameters(), lr=options.rate, fused=True)

    def epoch(self, epoch: int) -> None:
        generator, options = epoch_generator(self._seed, epoch), self._options
        self.model.train()
        for pairs in torch.split(torch.randperm(len(self._pairs[0]), generator=generator), options.batch):
            users, items = (side[pairs] for side in self._pairs)
            others = torch.randint(self._content.shape[0], (options.negatives,), generator=generator)
            swapped = torch.rand(len(items) + len(others), generator=generator) < options.replaced
            loss = self._loss(users, items, others, swapped)
            self.adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.adam.step()

    def _loss(self, users: Tensor, items: Tensor, others: Tensor, swapped: Tensor) -> Tensor:
        options, count = self._options, len(items)
        both = torch.cat([items, others])
        free, made = functional.embedding(both, self.model.items), self.model.net(self._content[both])
        unit_free, unit_made = functional.normalize(free), functional.normalize(made)
        again = items[:, None] == others[None, :]
        same = _contrast(unit_free[:count], unit_made[:count], unit_made[count:], options.temperature, again)
        of_users = functional.embedding(users, self.model.users)
        scored = torch.where(swapped[:, None], made, free)
        liked = torch.from_numpy(self._likes[users.numpy()][:, others.numpy()].toarray())
        wanted = _contrast(of_users, scored[:count], scored[count:], 1.0, liked)
        lengths = (of_users.square().sum() + free[:count].square().sum()) / (2 * count)
        return options.share * same + (1 - options.share) * wanted + options.decay * lengths

    def vectors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vectors of users, training items and cold items."""
        self.model.eval()
        with torch.no_grad():
            cold = self.model.net(self._cold)
        return self.model.users.detach().numpy(), self.model.items.detach().numpy(), cold.numpy()


def _contrast(anchors: Tensor, right: Tensor, wrong: Tensor, temperature: float, hidden: Tensor) -> Tensor:
    """Return the mean of -ln of the right one's share.

    Args:
        anchors: float32 [B, d].
        right: of each anchor, float32 [B, d].
        wrong: of all anchors, float32 [N, d].
        temperature: divides inner products.
        hidden: the wrong ones that do not count for an anchor, bool [B, N].
    """
    good = (anchors * right).sum(1, keepdim=True)
    bad = (anchors @ wrong.T).masked_fill(hidden, -torch.inf)
    return functional.cross_entropy(torch.cat([good, bad], 1) / temperature, torch.zeros(len(good), dtype=torch.int64))
