"""The one protocol that every engine speaks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.engines.partial import Partial

Mode = Literal["topk", "sample"]
MODES: tuple[Mode, ...] = ("topk", "sample")


@dataclass(frozen=True)
class Request:
    """What to select.

    Attributes:
        k: users an item, at least 1 and at most the table's rows.
        mode: ``topk``, or ``sample`` for K users drawn without replacement from the distribution (Gumbel-top-K).
        seeds: one an item; used by ``sample`` only.
        deadline: a time of :func:`time.monotonic` in seconds after which no further tile is begun; None is never.
    """

    k: int
    mode: Mode
    seeds: tuple[int, ...]
    deadline: float | None

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@dataclass(frozen=True)
class Scan:
    """What an engine found.

    Attributes:
        best: the merged partial of all rows scored.
        rows_scored: rows that were scored before the deadline.
        scan_ms: time spent scoring and selecting within tiles.
        merge_ms: time spent merging tiles.
    """

    best: Partial
    rows_scored: int
    scan_ms: float
    merge_ms: float


class Engine(Protocol):
    """Scores item vectors against a whole table. Safe to call from many threads at once."""

    name: ClassVar[str]

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Scan:
        """Scan the table for a batch of item vectors, float32 [B, d]; at least one tile is always scored."""
        ...
