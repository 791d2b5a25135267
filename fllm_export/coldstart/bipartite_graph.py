"""The graph of users and items that NGCF and LightGCN propagate over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fllm_export.evaluation.baselines.known import require_scipy
from fllm_export.evaluation.dataset import Positions


@dataclass(frozen=True)
class BipartiteGraph:
    """Normalised weights of edges: 1 / sqrt(d_u d_i), where d is the number of edges of a node.

    Attributes:
        to_users: sparse matrix [U, T], from items to users.
        to_items: sparse matrix [T, U], from users to items.
    """

    to_users: Any
    to_items: Any

    @classmethod
    def of(cls, users: Positions, items: Positions, shape: tuple[int, int]) -> BipartiteGraph:
        """Build the graph.

        Args:
            users: of each pair, int64 [P].
            items: of each pair, int64 [P].
            shape: numbers of users and items.

        Raises:
            HardwareError: SciPy is not installed.
        """
        of_users, of_items = np.bincount(users, minlength=shape[0]), np.bincount(items, minlength=shape[1])
        edges = (1 / np.sqrt(of_users[users] * of_items[items])).astype(np.float32)
        sparse = require_scipy("scipy.sparse")
        to_users = sparse.csr_matrix((edges, (users, items)), shape=shape)
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
