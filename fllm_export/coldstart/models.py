"""The three recommenders: matrix factorisation, LightGCN and NGCF. Each gives users and items vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fllm_export.coldstart.bipartite_graph import BipartiteGraph

_SLOPE = 0.2


class Mf(nn.Module):
    """Matrix factorisation (Rendle et al., 2009): the score is the inner product of two free vectors.

    Attributes:
        users: float32 [U, d].
        items: float32 [T, d].
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users: Tensor = nn.Parameter(users)
        self.items: Tensor = nn.Parameter(items)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the vectors that score, of users and of items."""
        return self.users, self.items


class LightGcn(Mf):
    """LightGCN (He et al., 2020): the mean of a node's own vector and of what 1 to L propagations make of it."""

    def __init__(self, users: Tensor, items: Tensor, graph: BipartiteGraph, layers: int) -> None:
        super().__init__(users, items)
        self._graph, self._layers = graph, layers

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the vectors that score, float32 [U, d] and [T, d]."""
        users, items = self.users, self.items
        of_users, of_items = users, items
        for _ in range(self._layers):
            users, items = self._graph.propagate(users, items)
            of_users, of_items = of_users + users, of_items + items
        return of_users / (self._layers + 1), of_items / (self._layers + 1)


class Ngcf(Mf):
    """NGCF (Wang et al., 2019).

    With E the own vectors of a layer and N E what the neighbours bring, the next layer is

        E' = leaky_relu((E + N E) W1 + b1 + (N E * E) W2 + b2)

    where * is elementwise. The scoring vector is E of the first layer and the unit vectors of all others, one after
    the other, (L + 1) d numbers. In training a part of E' is dropped.
    """

    def __init__(
        self, users: Tensor, items: Tensor, graph: BipartiteGraph, layers: int, dropout: float, seed: int
    ) -> None:
        super().__init__(users, items)
        dim = users.shape[1]
        self._graph, self._dropout = graph, dropout
        self._noise = torch.Generator().manual_seed(seed)
        self.sums = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        self.products = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        for layer in [*self.sums, *self.products]:
            nn.init.xavier_uniform_(layer.weight, generator=self._noise)
            nn.init.zeros_(layer.bias)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the vectors that score, float32 [U, (L + 1) d] and [T, (L + 1) d]."""
        users, items = self.users, self.items
        of_users, of_items = [users], [items]
        for sums, products in zip(self.sums, self.products, strict=True):
            near_users, near_items = self._graph.propagate(users, items)
            users = self._dropped(_activated(users, near_users, sums, products))
            items = self._dropped(_activated(items, near_items, sums, products))
            of_users.append(nn.functional.normalize(users))
            of_items.append(nn.functional.normalize(items))
        return torch.cat(of_users, 1), torch.cat(of_items, 1)

    def reseed(self, seed: int) -> None:
        """Begin a new sequence of dropped numbers."""
        self._noise.manual_seed(seed)

    def _dropped(self, values: Tensor) -> Tensor:
        if not self.training or self._dropout == 0:
            return values
        kept = torch.rand(values.shape, generator=self._noise) >= self._dropout
        return values * kept / (1 - self._dropout)


def _activated(own: Tensor, near: Tensor, sums: nn.Module, products: nn.Module) -> Tensor:
    return nn.functional.leaky_relu(sums(own + near) + products(near * own), _SLOPE)
