"""Many items at once, where arithmetic is the limit: beside ONNX Runtime, FAISS, and our own pass for one item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.native.bench import Bench, one_item, shape
from benchmarks.native.onnx_head import CHUNK_ROWS, OnnxHead
from benchmarks.native.ours import Ours
from benchmarks.native.population import F32, Population
from benchmarks.native.timing import Call, paired
from benchmarks.native.truth import I64, exact_top, recall
from fllm_export.sweep.peers.with_faiss import Faiss

CASE = "batch"
PLAIN = "rows as they come"
CLUSTERED = "clustered rows"
TOP = "top-K"
TOP_AND_LOG_PROBS = "top-K and log-probabilities"

Answer = Callable[[F32], I64]


def batch(bench: Bench, population: Population, items: int) -> None:
    """Time ``items`` items at once on an int8 table, exact, with and without the softmax denominator."""
    directory = bench.tables.get(population)
    z = population.items(items)
    tables = {PLAIN: bench.ours(directory), CLUSTERED: bench.ours(bench.tables.get(population, cluster=True))}
    for name, ours in tables.items():
        bench.note(f"{CASE}: checking {name} against the NumPy engine")
        ours.check(z, bench.k)
    bench.note(f"{CASE}: the float32 ranking")
    truth = exact_top(population.chunks(), z, bench.k)
    own = recall(tables[PLAIN].topk(z, bench.k).user_ids, truth)
    race = Race(bench, tables, z, truth, {**shape(population, items), "recall": round(own, 5)})
    race.own_pass()
    for log_probs in (False, True):
        for chunk_rows in CHUNK_ROWS:
            name = f"ONNX Runtime MatMulNBits, chunks of {chunk_rows:,}{', LogSumExp' if log_probs else ''}"
            race.beside(name, _onnx_head(directory, bench, chunk_rows, log_probs), log_probs=log_probs)
    rows = population.all_rows()
    for factory in ("Flat", "SQ8"):
        contender = Faiss(factory)
        race.beside(contender.name, _faiss(contender, rows, bench), log_probs=False)


@dataclass(frozen=True)
class Race:
    """One batch, and whoever ranks it.

    Attributes:
        bench: the run.
        tables: ours, by the order of their rows.
        z: the items.
        truth: their float32 ranking.
        about: what every line says of the case.
    """

    bench: Bench
    tables: dict[str, Ours]
    z: F32
    truth: I64
    about: dict[str, Any]

    def own_pass(self) -> None:
        """Compare with our own pass for one item, of which the batch would else be as many."""
        plain = self.tables[PLAIN]
        calls: dict[str, Call] = {"one item": lambda turn: plain.topk(one_item(self.z, turn), self.bench.k)}
        for log_probs in (False, True):
            calls |= self._own_calls(log_probs=log_probs)
        times = paired(calls, self.bench.repeats)
        count = len(self.z)
        yardstick = {f"our own one-item pass, {count} times over": times.pop("one item").scaled(count)}
        products = self.about["rows"] * self.about["dim"] * count
        for what, ms in times.items():
            speed = round(products / ms.median / 1e6, 1)
            self.bench.compare(CASE, what, ms, yardstick, **self.about, giga_products_per_s=speed)

    def _own_calls(self, *, log_probs: bool) -> dict[str, Call]:
        what = TOP_AND_LOG_PROBS if log_probs else TOP
        return {f"{what}, {order}": self._asker(ours, log_probs=log_probs) for order, ours in self.tables.items()}

    def _asker(self, ours: Ours, *, log_probs: bool) -> Call:
        return lambda _: ours.topk(self.z, self.bench.k, log_probs=log_probs)

    def beside(self, name: str, build: Callable[[], Answer], *, log_probs: bool) -> None:
        """Time another library on the same items, if it is there."""
        self.bench.note(f"{CASE}: {name}")
        try:
            answer = build()
        except ImportError as error:
            self.bench.record(CASE, f"{name} is not here", reason=str(error))
            return
        found = round(recall(answer(self.z), self.truth), 5)
        calls = self._own_calls(log_probs=log_probs)
        times = paired({**calls, name: lambda _: answer(self.z)}, self.bench.repeats)
        for mine in calls:
            self.bench.compare(CASE, mine, times[mine], {name: times[name]}, **self.about, against_recall=found)


def _onnx_head(directory: Path, bench: Bench, chunk_rows: int, log_probs: bool) -> Callable[[], Answer]:
    def build() -> Answer:
        return OnnxHead(directory, bench.k, bench.threads, chunk_rows, log_probs=log_probs).topk

    return build


def _faiss(contender: Faiss, rows: F32, bench: Bench) -> Callable[[], Answer]:
    def build() -> Answer:
        index = contender.build(rows, bench.threads)
        return lambda z: index.search(z, bench.k, {})

    return build
