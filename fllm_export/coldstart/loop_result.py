"""What an evaluation of the cold-start loop found: figures per arm and seed, their means and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fllm_export.coldstart.loop_arms import NO_PAIRS
from fllm_export.coldstart.names import Protocol
from fllm_export.coldstart.ranking_tasks import TASKS
from fllm_export.evaluation.baselines.known import require_scipy

METRICS = ("recall", "ndcg")


@dataclass(frozen=True)
class Figure:
    """A metric over seeds.

    Attributes:
        mean: over the seeds.
        deviation: standard deviation of the sample; None with one seed.
        p: of a paired t-test over seeds against the arm without pseudo-interactions, two-sided; None with one seed,
            and where all differences are equal.
    """

    mean: float
    deviation: float | None
    p: float | None


@dataclass(frozen=True)
class LoopResult:
    """Figures of one recommender.

    Attributes:
        recommender: its name.
        protocol: the evaluator, ``a`` or ``b``.
        k: length of the lists.
        seeds: their number.
        metrics: for each arm and seed the recall, NDCG and number of lists of each task; an arm may lack tasks.
        params: what each arm chose on validation pairs.
    """

    recommender: str
    protocol: Protocol
    k: int
    seeds: int
    metrics: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]
    params: Mapping[str, Mapping[str, float]]

    def values(self, arm: str, task: str, metric: str) -> list[float]:
        """Return a metric of each seed; none where the arm lacks the task."""
        return [seed[task][metric] for seed in self.metrics[arm] if task in seed]

    def figure(self, arm: str, task: str, metric: str) -> Figure | None:
        """Return a metric over seeds, or None where the arm lacks the task.

        Raises:
            HardwareError: SciPy is not installed.
        """
        values = np.array(self.values(arm, task, metric))
        if not len(values):
            return None
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        gaps = values - np.array(self.values(NO_PAIRS, task, metric))
        p = None
        if len(values) > 1 and gaps.std() > 0:
            p = float(require_scipy("scipy.stats").ttest_1samp(gaps, 0.0).pvalue)
        return Figure(float(values.mean()), deviation, p)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "recommender": self.recommender,
            "protocol": self.protocol,
            "k": self.k,
            "seeds": self.seeds,
            "arms": [
                {"name": arm, "params": dict(self.params[arm]), "seeds": [dict(seed) for seed in self.metrics[arm]]}
                | {task: found for task in TASKS if (found := self._task(arm, task))}
                for arm in self.metrics
            ],
        }

    def _task(self, arm: str, task: str) -> dict[str, Any]:
        found = {metric: self.figure(arm, task, metric) for metric in METRICS}
        return {
            metric: {"mean": figure.mean, "deviation": figure.deviation, "p": figure.p}
            for metric, figure in found.items()
            if figure is not None
        }

    def columns(self) -> list[tuple[str, str]]:
        """Return task and metric of each column of :meth:`rows`."""
        return [(task, metric) for task in TASKS for metric in METRICS]

    def means(self, task: str, metric: str) -> dict[str, float]:
        """Return the mean over seeds of each arm that has the task."""
        found = {arm: self.figure(arm, task, metric) for arm in self.metrics}
        return {arm: figure.mean for arm, figure in found.items() if figure is not None}

    def legend(self) -> str:
        """Return what the figures of :meth:`rows` are, as plain text."""
        if self.seeds == 1:
            return f"Evaluator {self.protocol}. One seed: no deviation and no test."
        return (
            f"Evaluator {self.protocol}. Mean and standard deviation over {self.seeds} seeds. *: p < 0.05 in a paired "
            f"t-test over the seeds against {NO_PAIRS!r}; no test where all seeds differ from it by the same amount."
        )

    def header(self) -> list[str]:
        """Return the names of the columns of :meth:`rows`."""
        names = {"recall": "recall", "ndcg": "NDCG"}
        return [
            f"{self.recommender}, {self.protocol}",
            *(f"{task} {names[metric]}@{self.k}" for task, metric in self.columns()),
        ]

    def rows(self) -> list[list[str]]:
        """Return a row of text per arm: mean and deviation, with a star where p < 0.05."""
        return [[arm, *(_told(self.figure(arm, *column)) for column in self.columns())] for arm in self.metrics]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [self.header(), ["---"] * (1 + len(self.columns())), *self.rows()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _told(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if figure.deviation is None:
        return f"{figure.mean:.4f}"
    star = "*" if figure.p is not None and figure.p < 0.05 else ""
    return f"{figure.mean:.4f} ± {figure.deviation:.4f}{star}"
