"""Processor time and wall time of a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Taken:
    """What one call took.

    Attributes:
        cpu: processor time of all threads of this process, in seconds.
        wall: in seconds.
    """

    cpu: float
    wall: float

    @classmethod
    def of(cls, call: Callable[[], Any]) -> Taken:
        """Run a call once."""
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        return cls(time.process_time() - cpu, time.perf_counter() - wall)

    @classmethod
    def median(cls, runs: Sequence[Taken]) -> Taken:
        """Return the medians of several runs."""
        return cls(statistics.median(run.cpu for run in runs), statistics.median(run.wall for run in runs))

    def to_json(self) -> dict[str, float]:
        """Return both, rounded to microseconds."""
        return {name: round(value, 6) for name, value in asdict(self).items()}
