"""The one protocol that every engine speaks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.engines.names import LogProbs, Mode
from fllm_export.engines.partial import Partial


@dataclass(frozen=True, eq=False)
class UserFilter:
    """Which users may be returned; probabilities stay those over all users.

    Attributes:
        user_ids: int64 [n]; ids that the table lacks are ignored.
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
        k: users an item, at least 1 and at most the table's rows.
        mode: ``topk``, or ``sample`` for K users drawn without replacement from the distribution (Gumbel-top-K).
        seeds: one an item; used by ``sample`` only.
        deadline: a time of :func:`time.monotonic` in seconds after which no further rows are begun; None is never.
        exact: whether the users must be provably the best; otherwise an engine may go by statistical bounds.
        log_probs: whether every row must be scored for the softmax denominator, or it may be estimated or left out.
        filter: the users that may be returned, or None for all.
    """

    k: int
    mode: Mode
    seeds: tuple[int, ...]
    deadline: float | None
    exact: bool = True
    log_probs: LogProbs = "exact"
    filter: UserFilter | None = None

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True)
class Scan:
    """What an engine found.

    Attributes:
        best: the merged partial of all rows scored; m and l are NaN where log-probabilities were not wanted.
        rows_scored: int64 [B], rows that were scored, or proven not to matter, before the deadline.
        complete: bool [B], whether an unlimited budget would give the same answer.
        log_probs_exact: bool [B], whether the denominator is the sum over every row.
        scan_ms: time spent scoring and selecting within tiles.
        merge_ms: time spent merging tiles.
    """

    best: Partial
    rows_scored: npt.NDArray[np.int64]
    complete: npt.NDArray[np.bool_]
    log_probs_exact: npt.NDArray[np.bool_]
    scan_ms: float
    merge_ms: float


class Engine(Protocol):
    """Scores item vectors against a whole table. Safe to call from many threads at once."""

    name: ClassVar[str]

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Scan:
        """Scan the table for a batch of item vectors, float32 [B, d]; some rows are always scored."""
        ...
