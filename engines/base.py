"""The one protocol that every engine speaks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.engines.names import LogProbs, Mode
from fllm_export.errors import UsageError
from fllm_export.link import EXPONENTIAL, Link

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from fllm_export.table.layout import TableLayout


@dataclass(frozen=True, eq=False)
class UserFilter:
    """Which users can be returned; probabilities stay those over all users.

    Attributes:
        user_ids: int64 [n]; ids that are not in the table are ignored.
        deny: whether these users are left out, rather than everybody else.
    """

    user_ids: npt.NDArray[np.int64]
    deny: bool

    def allows(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return for each id whether it may be returned, bool [rows]."""
        return np.isin(ids, self.user_ids, invert=self.deny)


@dataclass(frozen=True)
class Request:
    """What to select.

    Attributes:
        k: users per item, at least 1 and at most the table's rows.
        mode: ``topk``, or ``sample`` for K users drawn without replacement from the distribution (Gumbel-top-K).
        seeds: one per item; used by ``sample`` only.
        deadline: a time of :func:`time.monotonic` in seconds after which no further rows are begun; None is never.
        exact: whether the users must be provably the best; otherwise an engine may go by statistical bounds.
        log_probs: whether every row must be scored for the softmax denominator, or it may be estimated or left out.
        filter: the users that may be returned, or None for all.
        refine: candidates per user wanted that the refinement rows rank again; 0 takes the rows that are scanned alone.
        refined_scores: whether each user that is found also gets the score of its refinement row, which changes neither
            who is found nor the order.
    """

    k: int
    mode: Mode
    seeds: tuple[int, ...]
    deadline: float | None
    exact: bool = True
    log_probs: LogProbs = "exact"
    filter: UserFilter | None = None
    refine: int = 0
    refined_scores: bool = False

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True)
class TableFacts:
    """What an engine has open.

    Attributes:
        rows: users in the table.
        dim: dimension of an item vector.
        codec: how a row that is scanned is stored.
        generation: version number of the table.
        refinement: codec of the refinement rows, or None.
        link: how scores become probabilities; it stays when the table is opened again.
    """

    rows: int
    dim: int
    codec: str
    generation: int
    refinement: str | None = None
    link: Link = EXPONENTIAL

    @classmethod
    def of(cls, layout: TableLayout) -> TableFacts:
        """Return the facts of a table's layout."""
        finer = None if layout.refinement is None else layout.refinement.codec
        return cls(layout.rows, layout.item_dim, layout.codec, layout.generation, finer, layout.link)


@dataclass(frozen=True)
class Answer:
    """What one pass over a table found for B items. Everything in it comes from that pass.

    Attributes:
        ids: int64 [B, j], ordered by (key descending, id ascending); j may be less than K.
        keys: float32 [B, j], what the order is by: the score, or its logit plus noise.
        scores: float32 [B, j].
        logsumexp: float64 [B], of the logits of the rows scored; NaN where log-probabilities were not requested.
        rows_scored: int64 [B], rows that were scored, or proven not to matter, before the deadline.
        complete: bool [B], whether an unlimited budget would give the same answer.
        exact: bool [B], whether these are provably the best users of the table; of a refined answer, whether its
            candidates were.
        log_probs_exact: bool [B], whether the denominator is the sum over every row.
        log_prob_error: float32 [B], the most by which the logsumexp is off; NaN where that is not known.
        log_probs_certified: bool [B], whether that is proven; otherwise it holds with a probability of 95%.
        rows: users in the table that the pass read.
        generation: version number of that table.
        scan_ms: time spent scoring and selecting within tiles.
        merge_ms: time spent merging tiles.
        refined_scores: float32 [B, j], by the refinement rows; None where the request does not want them.
    """

    ids: npt.NDArray[np.int64]
    keys: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    logsumexp: npt.NDArray[np.float64]
    rows_scored: npt.NDArray[np.int64]
    complete: npt.NDArray[np.bool_]
    exact: npt.NDArray[np.bool_]
    log_probs_exact: npt.NDArray[np.bool_]
    log_prob_error: npt.NDArray[np.float32]
    log_probs_certified: npt.NDArray[np.bool_]
    rows: int
    generation: int
    scan_ms: float
    merge_ms: float
    refined_scores: npt.NDArray[np.float32] | None = None


_ROUNDING = 1e-5
"""By how much float32 scores and sums put a logsumexp off at most, relative to it, or to 1 if that is more."""


def told_errors(errors: npt.NDArray[np.float64], logsumexp: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the ``log_prob_error`` of an answer, [B]: what the sum lacks, NaN where that is unknown, and rounding."""
    return (errors + _ROUNDING * np.maximum(1.0, np.abs(logsumexp))).astype(np.float32)


def joined(answers: Sequence[Answer]) -> Answer:
    """Return one answer for the items of several passes over one open table."""
    scan_ms, merge_ms = (sum(getattr(answer, name) for answer in answers) for name in ("scan_ms", "merge_ms"))
    return replace(answers[0], **joined_arrays(answers), scan_ms=scan_ms, merge_ms=merge_ms)


def joined_arrays(parts: Sequence[DataclassInstance]) -> dict[str, Any]:
    """Concatenate the array fields of some dataclass instances, along the items."""
    return {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(parts[0])
        if isinstance(getattr(parts[0], field.name), np.ndarray)
    }


def check_reopened(before: TableFacts, now: TableFacts) -> None:
    """Check that a table can take the place of the one that was open.

    Raises:
        UsageError: its rows have another dimension, or it has another link.
    """
    if now.dim != before.dim:
        raise UsageError(f"the table now holds rows of dimension {now.dim}", expected=f"{before.dim}, as before")
    if now.link != before.link:
        raise UsageError(f"the table now has the link {now.link}", expected=f"{before.link}, as before")


class Engine(Protocol):
    """Scores item vectors against a whole table. Safe to call from many threads at once."""

    @property
    def name(self) -> str:
        """The engine's name in :data:`fllm_export.engines.registry.ENGINES`."""
        ...

    @property
    def facts(self) -> TableFacts:
        """What is open now; an answer carries the facts of the pass that made it."""
        ...

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan the table for a batch of item vectors, float32 [B, d]; some rows are always scored."""
        ...

    def reopen(self) -> None:
        """Open the table's directory again; on failure nothing changes, and searches under way end on the old table.

        Raises:
            BundleError: the new table is damaged.
            UsageError: its rows have another dimension, or it has another link.
        """
        ...
