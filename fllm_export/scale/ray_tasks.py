"""Tasks on a Ray cluster, for :func:`fllm_export.scale.building.write_in_parts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RayTasks:
    """Calls a function on the cluster that the process is connected to. A task that dies with its machine runs again.

    Attributes:
        processors: that a task reserves.
        at_once: tasks that are submitted before the first has ended, or None for all.
    """

    processors: float = 1
    at_once: int | None = None

    def __call__(self, function: Callable[[T], R], arguments: Sequence[T]) -> Iterator[R]:
        """Yield the results in the order of the arguments."""
        task: Any = ray.remote(function).options(num_cpus=self.processors, max_retries=-1)
        waiting: list[Any] = []
        most = self.at_once or len(arguments)
        for argument in arguments:
            waiting.append(task.remote(argument))
            if len(waiting) == most:
                yield ray.get(waiting.pop(0))
        while waiting:
            yield ray.get(waiting.pop(0))
