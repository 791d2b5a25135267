"""Users that did not like an item, drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor


class Positives:
    """The known pairs, and random users outside them."""

    def __init__(self, users: Tensor, items: Tensor, user_count: int) -> None:
        self._count = user_count
        self._keys = torch.sort(items * user_count + users).values

    def holds(self, users: Tensor, items: Tensor) -> Tensor:
        """Return bool [P]: whether each pair is a known positive."""
        keys = items * self._count + users
        at = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        return self._keys[at] == keys

    def draw_negatives(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Return for each item one user, uniform over those that did not like it (int64 [P]).

        An item that nearly everyone likes keeps a positive after a few redraws; its pair then has no effect worth
        the search.
        """
        users = torch.randint(self._count, items.shape, generator=generator)
        for _ in range(8):
            taken = torch.nonzero(self.holds(users, items)).squeeze(1)
            if not len(taken):
                break
            users[taken] = torch.randint(self._count, taken.shape, generator=generator)
        return users
