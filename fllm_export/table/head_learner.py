"""The rule by which users of a softmax head are learned without training: a prior in closed form, and a fold-in.

    row_u = e_u A + w_u B

e_u is the closed form's row of the user in the coordinates of the head (:mod:`fllm_export.table.learner`), w_u what
:mod:`fllm_export.table.fold_in` finds with the first numbers of e_u as w_0. A and B lead to rows as the table stores
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, UsageError
from fllm_export.head_rule import CLOSED_TENSOR, HEAD_TENSORS, HeadRule
from fllm_export.rule_numbers import RuleNumbers
from fllm_export.table.fixed_point import exact_product, on_grid
from fllm_export.table.fold_in import FoldIn
from fllm_export.table.learner import Learner, damaged_rule, read_rule, write_rule
from fllm_export.table.shard import Array, read_tensors

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeadLearner:
    """Makes the rows of users of a head from their items.

    Attributes:
        closed: makes e_u, and the biases of the table.
        head: the fixed part of the head.
    """

    closed: Learner
    head: HeadRule

    @classmethod
    def of(cls, closed: Learner, head: HeadRule) -> HeadLearner:
        """Return the learner of a head.

        Raises:
            UsageError: the parts do not fit together.
        """
        problem = head.problem(len(closed.item_ids), closed.dim, int(head.head_map.shape[-1]))
        if problem is not None:
            raise UsageError(problem, expected="the fixed part of a head that was trained on the closed form's items")
        return cls(closed, head)

    @property
    def dim(self) -> int:
        """Dimension of a row."""
        return int(self.head.head_map.shape[1])

    def positions(self, item_ids: I64) -> I32:
        """Return the position of each item, as :meth:`Learner.positions`."""
        return self.closed.positions(item_ids)

    def rows(self, starts: I64, items: I32) -> F32:
        """Return rows, float32 [U, dim], of the same arguments as :meth:`Learner.rows`.

        Raises:
            BundleError: the numbers of the rule are so large that a row is not finite.
        """
        closed = self.closed.exact_rows(starts, items)
        weights = self.weights(starts, items)
        parts = (closed, self._closed_map), (weights, self._head_map)
        found = sum(exact_product(on_grid(rows), matrix) for rows, matrix in parts)
        with np.errstate(over="ignore"):
            made: F32 = np.asarray(found, np.float64).astype(np.float32)
        if not np.isfinite(made).all():
            raise BundleError(
                "the learner makes rows that are not finite",
                expected="the numbers of a trained head",
                fix="Train again and build again",
            )
        return made

    def bias(self, starts: I64) -> F32 | None:
        """Return b_u, float32 [U], or None where rows have none."""
        return self.closed.bias(starts)

    def weights(self, starts: I64, items: I32) -> F64:
        """Return w_u, float64 [U, r], of the same arguments."""
        fold_in, pulls, prior, bias = self.problem_of(starts, items)
        return fold_in.rows(pulls, prior, bias)

    def problem_of(self, starts: I64, items: I32) -> tuple[FoldIn, F64, F64, F64]:
        """Return what w_u is the maximum of: the fold-in, and its arguments for these users."""
        prior = self.closed.exact_rows(starts, items)[:, : self.head.vectors.shape[1]]
        bias = self.closed.bias(starts)
        logits = np.zeros(len(prior)) if bias is None else bias.astype(np.float64) / self.head.scale
        return self._fold_in, self._pulls.exact_rows(starts, items), prior, logits

    @cached_property
    def _fold_in(self) -> FoldIn:
        vectors = on_grid(self.head.vectors, whole=True).astype(np.float32)
        return FoldIn(vectors, self.head.log_normalisers, self.head.strength)

    @cached_property
    def _pulls(self) -> Learner:
        """Sums y_i / n_i over the items of users, exactly."""
        shares = 1 / self.head.counts.astype(np.float64)
        return Learner.of(self.closed.item_ids, self._fold_in.vectors * shares[:, None], 0.0, None)

    @cached_property
    def _closed_map(self) -> F64:
        return on_grid(self.head.closed_map, whole=True)

    @cached_property
    def _head_map(self) -> F64:
        return on_grid(self.head.head_map, whole=True)

    def save(self, path: Path) -> None:
        """Publish the learner as :meth:`Learner.save` does, with the tensors of the head."""
        tensors: dict[str, Array] = {"item_ids": self.closed.item_ids, CLOSED_TENSOR: self.closed.contributions}
        tensors |= {name: getattr(self.head, name) for name in HEAD_TENSORS}
        numbers = RuleNumbers(self.closed.user_power, self.closed.activity, self.head.strength, self.head.scale)
        write_rule(path, tensors, numbers)

    @classmethod
    def load(cls, path: Path) -> HeadLearner:
        """Map what :meth:`save` wrote.

        Raises:
            BundleError: the file is missing or damaged.
        """
        dtypes = {"item_ids": "I64", CLOSED_TENSOR: "F32"} | HEAD_TENSORS
        (ids, closed, *tensors), numbers = read_rule(path, dtypes, head=True)
        if numbers.strength is None or numbers.scale is None:
            raise damaged_rule(path, "it has no strength")
        named = zip(HEAD_TENSORS.items(), tensors, strict=True)
        views = {name: array.view(_NUMPY[dtype]) for (name, dtype), array in named}
        learner = Learner(ids.view(np.int64), closed.view(np.float32), numbers.user_power, numbers.activity)
        learner.check(path, CLOSED_TENSOR)
        try:
            return cls.of(learner, HeadRule(**views, strength=numbers.strength, scale=numbers.scale))
        except UsageError as error:
            raise damaged_rule(path, error.found) from error


_NUMPY = {"I64": np.int64, "F32": np.float32}


def load_rule(path: Path) -> Learner | HeadLearner:
    """Map the learner of a bundle, of whichever kind it is.

    Raises:
        BundleError: the file is missing or damaged.
    """
    return HeadLearner.load(path) if CLOSED_TENSOR in read_tensors(path) else Learner.load(path)
