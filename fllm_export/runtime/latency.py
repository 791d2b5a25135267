"""How long answers take, stage by stage, beside a plain fp32 scan of the same rows in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.engines.names import LogProbs
from fllm_export.progress import Progress, silent
from fllm_export.runtime.runtime import Runtime
from fllm_export.runtime.user_table import UserTable

STAGES = ("tokenise", "encode", "scan", "merge")
YARDSTICK_BYTES_MAX = 2 << 30
_WARM_UP = 3


@dataclass(frozen=True)
class Spread:
    """Milliseconds of repeated calls."""

    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Spread:
        """Return the quantiles of some times."""
        return cls(*(float(np.quantile(times_ms, share)) for share in (0.5, 0.9, 0.99)))


@dataclass(frozen=True)
class Latency:
    """What one batch size takes.

    Attributes:
        batch: items per call.
        k: users per item.
        repeats: measured calls.
        first_ms: the first call of all, before anything was warm.
        total: wall time of a call.
        stages: wall time of each stage.
        yardstick: a NumPy fp32 matrix product over the decoded rows and an argpartition, in the same run; None when
            the rows would take more than :data:`YARDSTICK_BYTES_MAX`.
    """

    batch: int
    k: int
    repeats: int
    first_ms: float
    total: Spread
    stages: dict[str, Spread]
    yardstick: Spread | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def measure_latency(
    asked: Runtime | UserTable,
    items: Sequence[str] | npt.NDArray[np.float32],
    *,
    batch: int,
    k: int,
    repeats: int,
    exact: bool | None = None,
    log_probs: LogProbs | None = None,
    refine: int | None = None,
    budget_ms: float | None = None,
    progress: Progress = silent,
) -> Latency:
    """Call ``topk`` again and again with the next ``batch`` items, and the yardstick after each call.

    Args:
        asked: a runtime, or a table.
        items: texts for a runtime, item vectors [n, d] for a table.
        batch: items per call.
        k: users per item.
        repeats: measured calls.
        exact: see :meth:`UserTable.topk`.
        log_probs: likewise.
        refine: likewise.
        budget_ms: likewise.
        progress: told of every call.

    Raises:
        UsageError: an argument is invalid.
    """
    users = asked if isinstance(asked, UserTable) else asked.users
    rows = _decoded(users)
    calls: list[dict[str, float]] = []
    yardstick: list[float] = []
    for number in range(_WARM_UP + repeats):
        part = [items[(number * batch + i) % len(items)] for i in range(batch)]
        began = time.perf_counter()
        answer = asked.topk(part, k, exact=exact, log_probs=log_probs, refine=refine, budget_ms=budget_ms)
        timings = answer.timings_ms
        calls.append({"total": (time.perf_counter() - began) * 1e3, **timings})
        if rows is not None:
            z = np.asarray(part, np.float32) if isinstance(asked, UserTable) else asked.encode(part)
            yardstick.append(_plain_scan(z, rows, k))
        progress(f"batch {batch}", number + 1, _WARM_UP + repeats)
    warm = calls[_WARM_UP:]
    return Latency(
        batch=batch,
        k=k,
        repeats=repeats,
        first_ms=calls[0]["total"],
        total=Spread.of([call["total"] for call in warm]),
        stages={stage: Spread.of([call[stage] for call in warm]) for stage in STAGES if stage in warm[0]},
        yardstick=Spread.of(yardstick[_WARM_UP:]) if yardstick else None,
    )


def _decoded(users: UserTable) -> npt.NDArray[np.float32] | None:
    if len(users) * users.dim * 4 > YARDSTICK_BYTES_MAX:
        return None
    return np.concatenate([rows for _, rows in users.decoded()])


def _plain_scan(z: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], k: int) -> float:
    """Return the milliseconds of the plainest exact answer: all scores, then a partial sort."""
    began = time.perf_counter()
    scores = z @ rows.T
    np.argpartition(scores, -k, axis=1)[:, -k:]
    return (time.perf_counter() - began) * 1e3
