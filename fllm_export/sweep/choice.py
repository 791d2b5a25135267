"""Picking the operating point: the cheapest point that is good enough and quick enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fllm_export.operating_point import OperatingPoint
from fllm_export.sweep.record import Conditions, Record


@dataclass(frozen=True)
class Requirement:
    """What an operating point must satisfy.

    Attributes:
        recall: lowest recall@k, from 0 to 1.
        budget_ms: highest p99 of a call in milliseconds; None for any.
    """

    recall: float = 0.0
    budget_ms: float | None = None

    def misses(self, record: Record) -> float:
        """Return how far a record is from satisfying it: 0 where it does.

        Recall that is missing counts in units of what the requirement lets go of, latency by the natural logarithm of
        how many times too long it is.
        """
        found = record.measured
        recall = max(0.0, self.recall - found.recall) / max(1 - self.recall, 1e-3)
        late = 0.0 if self.budget_ms is None else max(0.0, math.log(found.p99_ms / self.budget_ms))
        return recall + late


@dataclass(frozen=True)
class Choice:
    """What was picked.

    Attributes:
        required: what it had to satisfy.
        record: the cheapest of our own points that satisfies it, or else the one that comes nearest.
        satisfied: which of the two it is.
    """

    required: Requirement
    record: Record
    satisfied: bool


def choose(records: Sequence[Record], required: Requirement) -> Choice:
    """Return the cheapest point that satisfies a requirement: fewest bytes per user, then threads, then latency.

    Args:
        records: of a sweep, at least one of our own among them.
        required: the requirement.
    """
    own = [record for record in records if record.own]
    enough = [record for record in own if required.misses(record) == 0]
    if enough:
        return Choice(required, min(enough, key=_price), True)
    return Choice(required, min(own, key=lambda record: (required.misses(record), _price(record))), False)


def operating_point(choice: Choice, conditions: Conditions) -> OperatingPoint:
    """Return what was picked, for those who build, open and ask tables."""
    why: dict[str, Any] = {
        "required": {"recall": choice.required.recall, "budget_ms": choice.required.budget_ms, "k": conditions.k},
        "point": choice.record.point,
        "measured": asdict(choice.record.measured),
        "about": asdict(conditions),
    }
    return OperatingPoint(**choice.record.axes, why=why)


def _price(record: Record) -> tuple[float, int, float]:
    return record.measured.bytes_per_user, record.axes["threads"], record.measured.median_ms
