"""Times of calls that take turns, so that a noisy moment falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[int], object]
"""Does the work once; is given the number of the round, by which it may choose its item."""

# Thread pools that spin after a call (OpenMP, ONNX Runtime) would otherwise take the next call's CPUs.
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call in each round."""

    ms: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round's."""
        return float(np.median(self.ms))

    @property
    def min(self) -> float:
        """The quickest round's."""
        return min(self.ms)

    def scaled(self, factor: float) -> Times:
        """Return the times of as many calls, one after another."""
        return Times(tuple(ms * factor for ms in self.ms))

    def times_as_fast_as(self, other: Times) -> float:
        """Return the median over rounds of the other's time by this one's: above 1, this one is quicker."""
        return float(np.median(np.array(other.ms) / np.array(self.ms)))


def paired(calls: Mapping[str, Call], repeats: int) -> dict[str, Times]:
    """Time all calls in each of ``repeats`` rounds, after one round that does not count."""
    kept: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, repeats):
        for name, call in calls.items():
            time.sleep(_PAUSE_SECONDS)
            began = time.perf_counter()
            call(max(number, 0))
            if number >= 0:
                kept[name].append((time.perf_counter() - began) * 1e3)
    return {name: Times(tuple(ms)) for name, ms in kept.items()}
