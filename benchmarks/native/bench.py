"""What every case is given, and the one form of its results: a JSON line a figure, beside its yardstick."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.native import machine
from benchmarks.native.ours import Ours, Tables
from benchmarks.native.population import F32, Kind, Population
from benchmarks.native.timing import Times


@dataclass
class Bench:
    """A run.

    Attributes:
        tables: where tables are made.
        engine: the engine that is measured.
        threads: of every engine and every yardstick.
        repeats: rounds of each paired timing.
        k: users an item.
        seed: of everything drawn.
        run: its name in every line.
    """

    tables: Tables
    engine: str
    threads: int
    repeats: int
    k: int = 100
    seed: int = 0
    run: str = field(default_factory=lambda: uuid4().hex[:8])

    def begin(self, preset: str) -> None:
        """Record the machine."""
        about = {"engine": self.engine, "threads": self.threads, "repeats": self.repeats, "k": self.k}
        self._print({"preset": preset, **about, "seed": self.seed, "machine": machine.describe()})

    def population(self, kind: Kind, rows: int, dim: int) -> Population:
        """Return the population of this run's seed."""
        return Population(kind, rows, dim, self.seed)

    def ours(self, directory: Path) -> Ours:
        """Open a table with the engine that is measured."""
        return Ours(directory, self.engine, self.threads)

    def record(self, case: str, what: str, **values: Any) -> None:
        """Print one result."""
        self._print({"case": case, "what": what, **values, "load": machine.load()})

    def compare(self, case: str, what: str, ours: Times, yardsticks: dict[str, Times], **values: Any) -> None:
        """Print one result for each yardstick that was timed beside it; ``times_as_fast`` above 1 is in its favour."""
        for name, other in yardsticks.items():
            times = {"ms": round(ours.median, 3), "ms_min": round(ours.min, 3)}
            against = {"against": name, "against_ms": round(other.median, 3), "against_ms_min": round(other.min, 3)}
            self.record(case, what, **values, **times, **against, times_as_fast=round(ours.times_as_fast_as(other), 3))

    def note(self, text: str) -> None:
        """Tell whoever waits what is going on."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def _print(self, values: dict[str, Any]) -> None:
        print(json.dumps({"benchmark": "native", "run": self.run, **values}), flush=True)


def one_item(items: F32, number: int) -> F32:
    """Return the item whose turn it is, [1, d]."""
    start = number % len(items)
    return items[start : start + 1]


def shape(population: Population, items: int) -> dict[str, Any]:
    """Return what a line says of the table and the batch."""
    return {"rows": population.rows, "dim": population.dim, "users": population.kind, "quant": "int8", "items": items}
