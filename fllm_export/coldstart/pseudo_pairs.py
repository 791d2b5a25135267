"""Pseudo-interactions: users that a model expects to like an item, as pairs with a probability each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from fllm_export import arguments
from fllm_export.checkpoint.tensors import open_tensors
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]

_FORMAT = "fllm-export pseudo-interactions"
_NAMES = ("item_ids", "user_ids", "probabilities")


@dataclass(frozen=True)
class PseudoPairs:
    """Pairs of items and users that nobody has observed, the best users of each item first.

    Attributes:
        item_ids: the items, each id once, int64 [B].
        user_ids: K users per item, int64 [B, K].
        probabilities: p(user | item) of each pair, among all users, float32 [B, K]; where they are unknown (random
            users, for example), 1 / K.

    Raises:
        UsageError: the shapes do not go together, an item occurs twice, or a probability is not from 0 to 1.
    """

    item_ids: Ids
    user_ids: Ids
    probabilities: Weights

    def __post_init__(self) -> None:
        users = arguments.integers(self.user_ids, "user_ids")
        if users.ndim != 2:
            raise UsageError(f"user_ids has the shape {list(users.shape)}", expected="[items, K]")
        flat = arguments.ids(users.reshape(-1), "user_ids")
        rows = arguments.numbers(self.probabilities, "probabilities")
        if rows.shape != users.shape:
            raise UsageError(f"probabilities has the shape {list(rows.shape)}", expected=f"{list(users.shape)}")
        weights = rows.astype(np.float32)
        if not ((weights >= 0) & (weights <= 1)).all():
            raise UsageError("probabilities has a number outside 0 to 1, or one that is not finite")
        object.__setattr__(self, "item_ids", arguments.unique_ids(self.item_ids, "item_ids", len(users)))
        object.__setattr__(self, "user_ids", flat.reshape(users.shape))
        object.__setattr__(self, "probabilities", weights)

    @classmethod
    def of_answer(cls, item_ids: Any, user_ids: Any, log_probs: Any) -> PseudoPairs:
        """Return the pairs of an answer of :meth:`fllm_export.Runtime.topk`.

        Args:
            item_ids: of the texts that were asked about, int64 [B].
            user_ids: int64 [B, K].
            log_probs: natural logarithms of the probabilities, float32 [B, K].
        """
        # float32 rounding may put a probability of nearly 1 a little above it.
        return cls(item_ids, user_ids, np.minimum(np.exp(np.asarray(log_probs, np.float64)), 1.0))

    @classmethod
    def load(cls, path: str | Path) -> PseudoPairs:
        """Read a file that :meth:`save` wrote.

        Raises:
            BundleError: it is missing or damaged, or a tensor is missing or has another shape.
        """
        file = arguments.path(path, "path")
        tensors = open_tensors(file)
        missing = [name for name in _NAMES if name not in tensors]
        if missing:
            raise BundleError(f"{file} has no tensor {missing[0]!r}", expected="the tensors " + ", ".join(_NAMES))
        tensors["item_ids"].expect((None,), ids=True)
        tensors["user_ids"].expect((None, None), ids=True)
        tensors["probabilities"].expect((None, None))
        try:
            ids = tensors["item_ids"].read_ids(), tensors["user_ids"].read_ids()
            return cls(*ids, tensors["probabilities"].read())
        except UsageError as error:
            raise BundleError(f"{file}: {error.found}", expected=error.expected, fix=error.fix) from error

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, all or nothing."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _NAMES}
        with publish(arguments.path(path, "path")) as out:
            out.write(save(tensors, {"format": _FORMAT}))

    def __len__(self) -> int:
        """Number of pairs."""
        return self.user_ids.size

    @property
    def k(self) -> int:
        """Users per item."""
        return int(self.user_ids.shape[1])

    def first(self, k: int) -> PseudoPairs:
        """Return the best ``k`` users of each item.

        Raises:
            UsageError: there are fewer.
        """
        k = arguments.integer(k, "k", least=1, most=self.k)
        return PseudoPairs(self.item_ids, self.user_ids[:, :k], self.probabilities[:, :k])

    def flat(self) -> tuple[Ids, Ids, Weights]:
        """Return items, users and probabilities, one entry per pair: int64 [P], int64 [P], float32 [P]."""
        return np.repeat(self.item_ids, self.k), self.user_ids.reshape(-1), self.probabilities.reshape(-1)
