"""How long calls take, and how far a figure can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

RUNS = 5
"""Every timed call is made at least so many times."""

RUNS_MAX = 50
CALLS = 8
"""So many calls of different items are timed at least, where there are as many."""

_DRAWS = 1_000
# Thread pools that spin after a call (OpenMP, ONNX Runtime) would otherwise take the next call's CPUs.
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, eq=False)
class Times:
    """Milliseconds of calls.

    Attributes:
        ms: float64 [runs, calls]; a column is one call, which every run repeats.
    """

    ms: F64

    @property
    def median(self) -> float:
        """Median over calls of each call's median over runs."""
        return float(np.median(np.median(self.ms, 0)))

    @property
    def p99(self) -> float:
        """What 99 of 100 calls stay below: the quantile over calls of each call's median over runs."""
        return float(np.quantile(np.median(self.ms, 0), 0.99))

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the median, by the bootstrap.

        Runs and calls are drawn again, both with replacement and independently, 1,000 times: runs, since a noisy
        moment falls on all calls of a run, and calls, since items differ. The ends are the 2.5 and 97.5 percentiles
        (Owen and Eckles 2012, "Bootstrapping data arrays of arbitrary order", the pigeonhole bootstrap).
        """
        generator = np.random.default_rng(0)
        runs, calls = self.ms.shape
        medians = np.empty(_DRAWS)
        for number in range(_DRAWS):
            drawn = self.ms[generator.integers(0, runs, runs)][:, generator.integers(0, calls, calls)]
            medians[number] = np.median(np.median(drawn, 0))
        low, high = np.quantile(medians, (0.025, 0.975))
        return float(low), float(high)

    def per_second(self, items: int) -> float:
        """Return the items per second of a run whose calls hold ``items`` each: the median over runs."""
        return float(np.median(items * self.ms.shape[1] / (self.ms.sum(1) / 1e3)))


def measure(
    call: Callable[[int], object], calls: int, warm_ms: float, seconds: float, between: Callable[[], object]
) -> Times:
    """Time calls that have been made before.

    Args:
        call: makes the call of a number below ``calls``.
        calls: how many different calls there are. Where 5 runs of all of them take longer than ``seconds``, only as
            many as fit are timed, but at least 8.
        warm_ms: what a call takes, roughly.
        seconds: after 5 runs, another begins only within this time.
        between: is called after each run.
    """
    fitting = int(seconds * 1e3 / (RUNS * max(warm_ms, 1e-6)))
    timed = min(calls, max(CALLS, fitting))
    chosen = np.linspace(0, calls - 1, timed).astype(int)
    runs: list[list[float]] = []
    began = time.monotonic()
    while len(runs) < RUNS or (len(runs) < RUNS_MAX and time.monotonic() - began < seconds):
        runs.append([_timed(call, int(number)) for number in chosen])
        between()
        time.sleep(_PAUSE_SECONDS)
    return Times(np.array(runs))


def _timed(call: Callable[[int], object], number: int) -> float:
    began = time.perf_counter()
    call(number)
    return (time.perf_counter() - began) * 1e3
