"""Items of the same users become neighbours: the loss that LoRA is trained with.

An item asks its neighbours who likes it. With unit vectors x, sharpness kappa and the n_j users of item j,

    w_ij     = softmax over the other items j of kappa x_i.x_j
    p(u | i) = (1 - delta) sum over the items j of u of w_ij / n_j  +  delta / U
    loss     = mean over items i of -(1 / |U_i|) sum over u in U_i of log p(u | i)

p(. | i) is a distribution over users in which item i itself has no part, so every training item is as good as cold
(neighbourhood components analysis, Goldberger et al., NIPS 2004, with users in the place of classes). User rows have
no part either: they follow afterwards in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fllm_export.checkpoint.feature_layers import unit_vectors
from fllm_export.errors import UsageError
from fllm_export.training.user_sums import Positions, UserItems

_SHARPNESS = 20.0
_SPREAD = 0.05
"""delta: the share of the probability that is spread evenly, so that a user without a neighbour costs a finite loss."""

_NEIGHBOURS_MOST = 65_536
_USERS_MOST = 256


class Neighbourhood(nn.Module):
    """The training items' vectors, as they were when they were last computed, and the loss of some of them.

    Of more than 65,536 items so many, drawn once, are neighbours; of an item with more than 256 users so many, drawn
    in every step, count.

    Args:
        states: x of the training items, float32 [T, h].
        users: the training items of each user.
        liked: for each training item its users.
        seed: of the draw of neighbours.

    Raises:
        UsageError: there is only one item, which has no neighbour.
    """

    bank: Tensor
    shares: Tensor

    def __init__(self, states: Tensor, users: UserItems, liked: Sequence[Positions], seed: int) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.tensor(_SHARPNESS).log())
        items, most = len(states), _NEIGHBOURS_MOST
        if items < 2:
            raise UsageError(
                f"there are {items} training items", expected="at least 2, because items learn from others"
            )
        chosen = np.arange(items)
        if items > most:
            chosen = np.sort(np.random.default_rng(seed).choice(items, most, replace=False))
        self._places = np.full(items, -1, np.int64)
        self._places[chosen] = np.arange(len(chosen))
        self._chosen = torch.from_numpy(chosen)
        self._users, self._liked = _among(users, self._places), liked
        shares = torch.tensor([1 / len(liked[item]) for item in chosen.tolist()])
        self.register_buffer("shares", shares, persistent=False)
        self.register_buffer("bank", unit_vectors(states[self._chosen]))

    def renew(self, states: Tensor) -> None:
        """Take the vectors of all training items again, float32 [T, h]."""
        self.bank.copy_(unit_vectors(states[self._chosen]))

    def loss(self, states: Tensor, items: Positions) -> Tensor:
        """Return the loss of some training items, and remember their vectors.

        Args:
            states: x, float32 [B, h], on any device.
            items: their places among the training items, int64 [B].
        """
        x = unit_vectors(states.to(self.bank.device))
        places = self._beside_bank(self._places[items])
        known = places >= 0
        keys = self.bank.index_put((places[known],), x[known])
        logits = self.log_sharpness.exp() * (x @ keys.T)
        logits = logits.index_put((known.nonzero()[:, 0], places[known]), logits.new_tensor(-torch.inf))
        weights = logits.softmax(1) * self.shares
        self.bank[places[known]] = x[known].detach()
        return self._negative_log(weights, items)

    def _negative_log(self, weights: Tensor, items: Positions) -> Tensor:
        """Return the loss of weights w_ij / n_j, float32 [B, N]."""
        users = [_drawn(self._liked[item]) for item in items.tolist()]
        rows = np.repeat(np.arange(len(users)), [len(some) for some in users])
        theirs = self._users.chosen(np.concatenate(users))
        pairs = np.repeat(np.arange(len(rows)), theirs.sizes)
        found = weights.flatten()[self._beside_bank(rows[pairs] * weights.shape[1] + theirs.items)]
        shares = found.new_zeros(len(rows)).index_add(0, self._beside_bank(pairs), found)
        p = (1 - _SPREAD) * shares + _SPREAD / len(self._users)
        means = 1 / np.bincount(rows)
        return -(p.log() * self._beside_bank(means[rows]).float()).sum() / len(users)

    def _beside_bank(self, values: npt.NDArray[Any]) -> Tensor:
        """Return values as a tensor on the device that holds the vectors."""
        return torch.from_numpy(values).to(self.bank.device)


def _among(users: UserItems, places: Positions) -> UserItems:
    """Return the users' items that have a place, by their place."""
    owners = np.repeat(np.arange(len(users)), users.sizes)
    items = places[users.items]
    return UserItems.of(owners[items >= 0], items[items >= 0], len(users))


def _drawn(users: Positions) -> Positions:
    """Return all users of an item, or some of very many, as torch's random numbers decide."""
    if len(users) <= _USERS_MOST:
        return users
    some: Positions = users[torch.randperm(len(users))[:_USERS_MOST].numpy()]
    return some
