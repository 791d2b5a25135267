"""The graph of users and items that NGCF and LightGCN propagate over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fllm_export.evaluation.baselines.known import require_scipy
from fllm_export.evaluation.dataset import Positions


@dataclass(frozen=True)
class BipartiteGraph:
    """Normalised weights of edges: w_ui / sqrt(d_u d_i), where d is the sum of the weights of a node.

    Edges of pseudo-interactions lead from users to items only: an item takes in its pseudo-users, but they do not take
    in the item, and d_u counts observed pairs alone. So what users and warm items take in depends on observed pairs
    alone, however many cold items there are.

    Attributes:
        to_users: sparse matrix [U, T], from items to users.
        to_items: sparse matrix [T, U], from users to items.
    """

    to_users: Any
    to_items: Any

    @classmethod
    def of(
        cls, users: Positions, items: Positions, weights: npt.NDArray[np.float32], observed: int, shape: tuple[int, int]
    ) -> BipartiteGraph:
        """Build the graph.

        Args:
            users: of each pair, int64 [P].
            items: of each pair, int64 [P].
            weights: of each pair, float32 [P].
            observed: number of observed pairs, which come first.
            shape: numbers of users and items.

        Raises:
            HardwareError: SciPy is not installed.
        """
        of_users = np.bincount(users[:observed], weights[:observed], shape[0])
        of_items = np.bincount(items, weights, shape[1])
        edges = weights / np.sqrt(np.maximum(of_users[users], 1e-12) * np.maximum(of_items[items], 1e-12))
        edges[observed:] *= of_users[users[observed:]] > 0
        sparse = require_scipy("scipy.sparse")
        edges = edges.astype(np.float32)
        first = slice(0, observed)
        to_users = sparse.csr_matrix((edges[first], (users[first], items[first])), shape=shape)
        return cls(to_users, sparse.csr_matrix((edges, (items, users)), shape=(shape[1], shape[0])))

    def propagate(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return what users take in from items, float32 [U, d], and items from users, float32 [T, d]."""
        return _spread(items, self.to_users), _spread(users, self.to_items)


class _Spread(torch.autograd.Function):
    """A sparse matrix times a dense one. SciPy's is deterministic and three times as fast as torch's on a CPU."""

    @staticmethod
    def forward(context: Any, dense: Tensor, sparse: Any) -> Tensor:
        """Return sparse @ dense."""
        context.sparse = sparse
        return torch.from_numpy(sparse @ dense.detach().numpy())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient for the dense matrix."""
        return torch.from_numpy(context.sparse.T @ gradients[0].contiguous().numpy()), None


def _spread(dense: Tensor, sparse: Any) -> Tensor:
    found: Tensor = _Spread.apply(dense, sparse)  # type: ignore[no-untyped-call]
    return found
