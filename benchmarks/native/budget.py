"""Answers that a budget cuts off: how late they come, and how much of the exact ranking they hold."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.ours import Ours
from benchmarks.native.population import Population

CASE = "budget"

_SHARES = (0.05, 0.1, 0.2, 0.5)
_ITEMS = 16
_CALLS = 300


def budget(bench: Bench, population: Population) -> None:
    """Give one item parts of a full pass's time, on rows as they come and on clustered ones."""
    items = population.items(_ITEMS)
    full_ms = 0.0
    for cluster in (False, True):
        ours = bench.ours(bench.tables.get(population, cluster=cluster))
        exact = ours.topk(items, bench.k).user_ids
        # Budgets are the same for both tables: parts of the time that reading every row takes.
        full_ms = full_ms or float(np.median([_timed(ours, items, turn, bench.k, None)[1] for turn in range(21)]))
        for share in _SHARES:
            budget_ms = round(share * full_ms, 3)
            found = [_timed(ours, items, turn, bench.k, budget_ms) for turn in range(_CALLS)]
            kept = [
                len(np.intersect1d(answer.user_ids[0], exact[turn % _ITEMS])) for turn, (answer, _) in enumerate(found)
            ]
            late = np.array([ms for _, ms in found]) - budget_ms
            values: dict[str, Any] = {
                "clustered": cluster,
                "budget_ms": budget_ms,
                "share_of_full_pass": share,
                "late_ms_p50": round(float(np.median(late)), 3),
                "late_ms_p99": round(float(np.quantile(late, 0.99)), 3),
                "late_ms_max": round(float(late.max()), 3),
                "coverage": round(float(np.mean([answer.coverage[0] for answer, _ in found])), 4),
                "complete": round(float(np.mean([answer.complete[0] for answer, _ in found])), 4),
                "recall": round(float(np.mean(kept)) / bench.k, 4),
            }
            bench.record(CASE, "clustered rows" if cluster else "rows as they come", **shape(population, 1), **values)


def _timed(ours: Ours, items: Any, turn: int, k: int, budget_ms: float | None) -> tuple[Any, float]:
    began = time.perf_counter()
    answer = ours.topk(one_item(items, turn), k, budget_ms=budget_ms)
    return answer, (time.perf_counter() - began) * 1e3
