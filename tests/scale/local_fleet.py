"""Machines of a test: threads of this process, any of which can be lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fllm_export.scale.part_host import PartHost, PartOptions, PartRequest, Reply


@dataclass
class Waiting:
    """A reply of a thread."""

    future: Future[Reply]

    def result(self, *, timeout_s: float | None) -> Reply:
        return self.future.result(timeout_s)


@dataclass
class LocalFleet:
    """A host per part; ``fails(part, number)`` tells whether the so-manieth request to a part is lost."""

    directory: Path
    parts: int
    engine: str = "native"
    fails: Callable[[int, int], bool] = lambda part, number: False
    asked: list[tuple[int, PartRequest]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = ThreadPoolExecutor(self.parts)
        self.hosts = [
            PartHost(PartOptions(self.directory, (part, self.parts), self.engine, 1)) for part in range(self.parts)
        ]

    def ask(self, part: int, asked: PartRequest) -> Waiting:
        number = sum(other == part for other, _ in self.asked)
        self.asked.append((part, asked))
        if self.fails(part, number):
            raise ConnectionError("this machine is gone")
        return Waiting(self.pool.submit(self.hosts[part].answer, asked))


class NeverInTime:
    """A reply that never comes."""

    def result(self, *, timeout_s: float | None) -> Reply:
        time.sleep(min(timeout_s or 0.0, 0.2))
        raise TimeoutError
