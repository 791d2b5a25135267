"""The project's own tables as contenders, so that they are tuned and timed like everybody else."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.native.bench import Bench
from benchmarks.native.ours import Ours, table_bytes
from benchmarks.native.population import F32, Population
from benchmarks.native.truth import I64
from fllm_export.sweep.peers.base import NO_KNOBS, Setting, multiples, rank_again


@dataclass(frozen=True)
class Own:
    """A table of a codec, scanned in full or by its sketch.

    Attributes:
        bench: the run.
        population: whose rows it holds.
        quant: its codec.
        sketch: whether it has a sketch.
        cluster: whether its tiles are clustered and have bounds.
        exact: whether the answer is the exact ranking of the stored rows.
        settings: with ``factor``, as many times k users are asked for and ranked again by their float32 rows, as
            the other libraries' refinements do.
    """

    bench: Bench
    population: Population
    quant: str
    sketch: bool
    cluster: bool
    exact: bool
    settings: tuple[Setting, ...] = NO_KNOBS

    @property
    def name(self) -> str:
        """The engine, the codec, the pass, and whether float32 rows are needed beside the table."""
        parts = [*(["clustered"] if self.cluster else []), *(["sketch"] if self.sketch else [])]
        way = f"{' '.join(parts)} {'exact' if self.exact else 'statistical'}" if parts else "full pass"
        return f"{self.bench.engine} {self.quant} {way}" + (" + float32 rows" if self.settings != NO_KNOBS else "")

    def build(self, rows: F32, threads: int) -> OwnTable:
        """Write the table and open it; one that this run has written already takes no time again."""
        directory = self.bench.tables.get(self.population, quant=self.quant, sketch=self.sketch, cluster=self.cluster)
        return OwnTable(self.bench.ours(directory), rows, table_bytes(directory), exact=self.exact)


class OwnTable:
    """An open table, and the float32 rows to rank again by."""

    def __init__(self, ours: Ours, rows: F32, file_bytes: int, *, exact: bool) -> None:
        self.file_bytes = file_bytes
        self._ours = ours
        self._rows = rows
        self._exact = exact

    def search(self, z: F32, k: int, setting: Setting) -> I64:
        """Ask without log-probabilities, which the others do not have either."""
        count = int(k * setting.get("factor", 1))
        return rank_again(self._rows, z, self._ours.topk(z, count, exact=self._exact).user_ids, k)


def own_contenders(bench: Bench, population: Population) -> list[Own]:
    """Return the ways there are: int8 and fp16 tables, in full or not, and int8 with float32 rows beside it."""
    again = multiples("factor", 1.25, 1.5, 2)
    ways: list[tuple[str, bool, bool, bool, tuple[Setting, ...]]] = [
        ("int8", False, False, True, NO_KNOBS),
        ("int8", False, False, True, again),
        ("fp16", False, False, True, NO_KNOBS),
        ("int8", False, True, True, again),
        ("int8", True, False, False, again),
        ("int8", True, True, True, NO_KNOBS),
        ("int8", True, True, True, again),
        ("int8", True, True, False, NO_KNOBS),
        ("int8", True, True, False, again),
        ("fp16", True, True, False, NO_KNOBS),
    ]
    return [Own(bench, population, *way) for way in ways]
