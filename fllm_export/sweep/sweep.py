"""The run of a sweep: the truth, then point after point, each recorded as soon as it is measured."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.progress import Progress, silent
from fllm_export.runtime.topk import TopK
from fllm_export.runtime.user_table import UserTable
from fllm_export.sweep import timing
from fllm_export.sweep.grid import Grid
from fllm_export.sweep.journal import Journal
from fllm_export.sweep.machine import load, machine, software
from fllm_export.sweep.peer_points import BuiltPeer, PeerIndex, failure
from fllm_export.sweep.point import Point, SearchChoice
from fllm_export.sweep.record import OWN, Conditions, Measured, Record
from fllm_export.sweep.subject import Subject
from fllm_export.sweep.tables import BuiltTable, Tables
from fllm_export.sweep.truth import Truth, kept_truth, true_top

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_YARDSTICK_ROWS = 65_536
_SECOND_DEPTH = 10


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        k: users per item, and depth of the recall.
        seconds: time limit of a point's timed runs; five runs are always made.
    """

    k: int = 100
    seconds: float = 5.0


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        conditions: what all points share.
        records: a record per point, in the order of the grid.
        left_out: reason -> number of combinations that were not measured.
        truth_s: seconds that the fp32 ranking of all rows took.
        reused: number of records of an earlier run.
        foreign: number of lines of other conditions in the directory, which were not used.
    """

    conditions: Conditions
    records: list[Record]
    left_out: dict[str, int]
    truth_s: float
    reused: int
    foreign: int


@dataclass(frozen=True, eq=False)
class Asked:
    """Who is measured, and what is known of it beforehand.

    Attributes:
        batch: items per call.
        items: item vectors, float32 [B, d].
        search: returns the ids [b, k] that some items get, and the coverage [b] of each.
        build_s: see :class:`Measured`.
        bytes_per_user: see :class:`Measured`.
    """

    batch: int
    items: F32
    search: Callable[[F32], tuple[I64, npt.NDArray[np.float32]]]
    build_s: float
    bytes_per_user: float


@dataclass(frozen=True, eq=False)
class Bench:
    """What measures: the same for every point and every library of a sweep.

    Attributes:
        subject: rows and items.
        truth: the fp32 ranking.
        settings: how much is measured.
    """

    subject: Subject
    truth: Truth
    settings: Settings
    _marks: list[float] = field(default_factory=list)

    def measure(self, asked: Asked) -> Measured:
        """Ask everything once, for the recall and to be warm, and then again and again with the clock."""
        starts = _starts(len(asked.items), asked.batch)
        batches = [asked.items[at : at + asked.batch] for at in starts]
        found = np.full((len(asked.items), self.settings.k), -1, np.int64)
        coverage = np.zeros(len(asked.items))
        warm_ms = []
        for at, batch in zip(starts, batches, strict=True):
            began = time.perf_counter()
            found[at : at + asked.batch], coverage[at : at + asked.batch] = asked.search(batch)
            warm_ms.append((time.perf_counter() - began) * 1e3)
        corpus = self.subject.corpus
        recall = self.truth.recall(corpus, found, self.settings.k)
        second = self.truth.recall(corpus, found, min(_SECOND_DEPTH, self.settings.k))
        self._marks.clear()
        times = timing.measure(
            lambda number: asked.search(batches[number]),
            len(batches),
            float(np.median(warm_ms)),
            self.settings.seconds,
            self._yardstick,
        )
        low, high = times.interval()
        return Measured(
            recall=float(recall.mean()),
            recall_at_10=float(second.mean()),
            worst_recall=float(recall.min()),
            coverage=float(coverage.mean()),
            median_ms=times.median,
            median_low_ms=low,
            median_high_ms=high,
            p99_ms=times.p99,
            items_per_s=times.per_second(asked.batch),
            runs=times.ms.shape[0],
            calls=times.ms.shape[1],
            build_s=asked.build_s,
            bytes_per_user=asked.bytes_per_user,
            yardstick_ms=float(np.median(self._marks)),
            load=load(),
        )

    def _yardstick(self) -> None:
        rows, item = self.subject.corpus.rows[:_YARDSTICK_ROWS], self.subject.corpus.items[0]
        began = time.perf_counter()
        np.dot(rows, item)
        self._marks.append((time.perf_counter() - began) * 1e3)


def _starts(items: int, batch: int) -> list[int]:
    """Return where full batches begin that together hold every item; the last two may overlap."""
    starts = list(range(0, items - batch + 1, batch))
    return starts if items % batch == 0 else [*starts, items - batch]


def conditions_of(subject: Subject, k: int) -> Conditions:
    """Return what all points of a sweep share.

    Raises:
        UsageError: k is not from 1 to the number of rows.
    """
    if not 1 <= k <= len(subject.corpus.rows):
        raise UsageError(f"k is {k}", expected=f"an integer from 1 to {len(subject.corpus.rows)}, the number of rows")
    return Conditions(k, machine(), software(), subject.facts)


def sweep(
    subject: Subject,
    grid: Grid,
    folder: Path,
    settings: Settings,
    progress: Progress = silent,
    finished: Callable[[Record], None] = lambda _: None,
    peers: Sequence[PeerIndex] = (),
) -> Sweep:
    """Measure the points of a grid that the directory does not hold yet.

    Args:
        subject: rows and items.
        grid: the points.
        folder: output directory; ``sweep.jsonl`` grows by a line per point.
        settings: how much is measured.
        progress: told of every stage.
        finished: given each new record.
        peers: indexes of other libraries, which are measured after the grid.

    Raises:
        UsageError: k is invalid, or another sweep works in the directory.
        BundleError: a score is not finite.
        BudgetError: disk or memory do not suffice.
    """
    conditions = conditions_of(subject, settings.k)
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder, conditions) as journal:
        facts = subject.facts
        key = f"{facts['rows_sha256']} {facts['items_sha256']} {settings.k}"
        truth = kept_truth(folder, key, lambda: true_top(subject.corpus, settings.k, progress))
        bench = Bench(subject, truth, settings)
        before = dict(journal.records)
        tables = Tables(folder, subject, conditions.key)
        left_out = dict(grid.left_out)
        records: list[Record] = []
        total = len(grid.points) + sum(1 for peer in peers for _ in peer.searches())
        own = _records(bench, grid, tables, journal, conditions.key)
        for record in chain(own, _peer_records(bench, peers, journal, conditions.key, left_out)):
            if record.point not in before:
                journal.add(record)
                finished(record)
            records.append(record)
            progress("points", len(records), total)
        tables.close()
        reused = sum(record.point in before for record in records)
        return Sweep(conditions, records, left_out, truth.seconds, reused, journal.foreign)


def _records(bench: Bench, grid: Grid, tables: Tables, journal: Journal, key: str) -> Iterator[Record]:
    """Yield the record of each point, measured now or before; a table is removed after its last point."""
    for number, point in enumerate(grid.points):
        known = journal.records.get(point.name)
        if known is None:
            measured = bench.measure(_asked(point, tables, bench.settings.k))
            known = Record(point.name, OWN, point.axes, measured, key, _now())
        yield known
        if number + 1 == len(grid.points) or grid.points[number + 1].table != point.table:
            tables.drop(point.table)


def _peer_records(
    bench: Bench, peers: Sequence[PeerIndex], journal: Journal, key: str, left_out: dict[str, int]
) -> Iterator[Record]:
    """Yield the record of each search of other libraries; an index that cannot be built is left out."""
    for peer in peers:
        searches = list(peer.searches())
        built: BuiltPeer | None = None
        if any(name not in journal.records for name, *_ in searches):
            gc.collect()
            try:
                built = peer.build(bench.subject)
            except (ImportError, RuntimeError) as error:
                left_out[failure(peer, error)] = len(searches)
                continue
        for name, axes, setting, batch in searches:
            known = journal.records.get(name)
            if known is None and built is not None:
                search = partial(built.search, k=bench.settings.k, setting=setting)
                measured = bench.measure(Asked(batch, built.items, search, built.build_s, built.bytes_per_user))
                known = Record(name, peer.library.name, axes, measured, key, _now())
            if known is not None:
                yield known


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _asked(point: Point, tables: Tables, k: int) -> Asked:
    built = tables.get(point.table)
    if point.search.engine == "onnxruntime":
        tables.head(point.table)
    search = _search(built, point.search, k)
    return Asked(point.search.batch, built.items, search, built.build_s, built.bytes_per_user)


def _search(built: BuiltTable, choice: SearchChoice, k: int) -> Callable[[F32], tuple[I64, npt.NDArray[np.float32]]]:
    table = UserTable.open(built.users, engine=choice.engine, threads=choice.threads, head=built.head)

    def search(z: F32) -> tuple[I64, npt.NDArray[np.float32]]:
        answer: TopK = table.topk(
            z,
            k,
            budget_ms=choice.budget_ms,
            exact=choice.exact,
            log_probs=choice.log_probs,
            refine=choice.candidates,
        )
        return answer.user_ids, answer.coverage

    return search
