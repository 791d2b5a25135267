"""The TensorRT engine: a bundle's head plan as a filter on the GPU, exact scores and the proof on the host."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, TableFacts, joined
from fllm_export.engines.partial import F64
from fllm_export.engines.query import Query
from fllm_export.engines.tensorrt.device_numbers import DeviceNumbers
from fllm_export.engines.tensorrt.device_table import DeviceTable
from fllm_export.engines.tensorrt.gpu import Gpu
from fllm_export.engines.tensorrt.head_pass import HeadPass
from fllm_export.engines.tensorrt.head_plan import HeadPlan
from fllm_export.engines.tensorrt.lane import Lane
from fllm_export.engines.tensorrt.staging import Staging
from fllm_export.environment import BYTES_MAX, positive_integer
from fllm_export.errors import UsageError
from fllm_export.link import EXPONENTIAL
from fllm_export.plan_forms import PLAN_FORMS
from fllm_export.table.table import Table

LANES = 2
"""Searches that run at the same time, each in contexts of its own."""

_SCRATCH_BYTES = 1 << 30
_LARGEST_SCALE = 2.0**60


class TensorRtEngine:
    """Runs a head plan over tiles that lie in GPU memory as far as they fit; the rest stream from pinned memory.

    Users, order and scores are those of the NumPy engine, bit for bit: the plan's scores only choose what is scored
    exactly (:mod:`fllm_export.engines.tensorrt.proof`). For fp8 that rests on an assumption, and no answer is called
    exact (:data:`fllm_export.engines.tensorrt.proof.ASSUMED`). Log-probabilities are over the plan's scores, float32
    for int8 tables, and of about three digits for fp8 ones. ``FLLM_GPU_BYTES`` limits the GPU memory in use.

    Args:
        table: the open table, int8 or fp8.
        plans: ``head/plans`` of the bundle.

    Raises:
        BudgetError: the memory of the GPU or of the host does not suffice.
        BundleError: a plan is damaged, or not one for this table.
        HardwareError: TensorRT, a GPU, or a plan for both is missing.
        UsageError: the table's codec has no head plans, or the table has refinement rows.
    """

    def __init__(self, table: Table, plans: Path) -> None:
        layout = table.layout
        self.facts = TableFacts.of(layout)
        _check(table)
        self._head = HeadPlan(plans, layout)
        for tile in table.tiles():
            table.check_finite(tile)
        self._gpu, self._table = Gpu(), table
        free = self._gpu.free_bytes
        limit = min(free, positive_integer("FLLM_GPU_BYTES", BYTES_MAX) or free)
        scratch = min(_SCRATCH_BYTES, limit // 8)
        # Of each row and item: its products, its score, and what TensorRT makes of it in passing.
        self._products = scratch // (4 * self._head.digits + 16)
        room = limit - LANES * scratch
        self._rows = DeviceTable(self._gpu, table, self._head.chunk_rows, self._head.least_rows, room)
        self._staging = Staging(self._gpu, self._rows)
        self._numbers = DeviceNumbers(self._gpu, on_host=self._head.plan.is_on_host("valid_rows"))
        self._streams = threading.Lock() if self._rows.place_size else contextlib.nullcontext()
        self._lanes: queue.LifoQueue[Lane | None] = queue.LifoQueue()
        for _ in range(LANES):
            self._lanes.put(None)

    @property
    def streamed_bytes(self) -> int:
        """Bytes that each pass brings from the host."""
        return sum(block.layout.size for block in self._rows.blocks if not block.resident)

    def search(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan the table for a batch of item vectors, float32 [B, d]."""
        began = time.perf_counter()
        self._check(request)
        query = _plain(Query.quantised(z))
        most = self._head.most_items
        with self._lane() as lane, self._streams:
            search = HeadPass(lane, self._head, self._table, self._rows, self._staging, self._products)
            try:
                groups = range(0, len(z), most)
                answers = [search.run(query.part(slice(first, first + most)), request) for first in groups]
            except BaseException:
                self._staging.forget()
                raise
        self._head.plan.keep_cache()
        scan_ms = (time.perf_counter() - began) * 1e3 - sum(answer.merge_ms for answer in answers)
        return replace(joined(answers), scan_ms=scan_ms)

    @contextlib.contextmanager
    def _lane(self) -> Iterator[Lane]:
        """Lend a lane; one that failed is not used again."""
        lane = self._lanes.get()
        kept: Lane | None = None
        try:
            if lane is None:
                lane = Lane(self._gpu, self._head, self._numbers, self._table.layout.dim, self._table.layout.bias)
            yield lane
            kept = lane
        finally:
            self._lanes.put(kept)

    def _check(self, request: Request) -> None:
        if request.k > self._head.k:
            raise UsageError(
                f"k is {request.k} and the plan {self._head.name} returns {self._head.k} users of a tile",
                expected=f"k of at most {self._head.k}",
                fix=f"Run: fllm-export plan BUNDLE -k {request.k}",
            )
        for wanted, what in ((request.mode == "sample", "sample users"), (request.filter is not None, "filter users")):
            if wanted:
                raise UsageError(f"the engine `tensorrt` cannot {what}", fix="Use the engine `cuda` or `native`")


def _plain(query: Query) -> Query:
    """Return the query if float32 holds its scales with room to spare."""
    scale: F64 = query.scale
    if not bool(((scale > 1 / _LARGEST_SCALE) & (scale < _LARGEST_SCALE)).all()):
        raise UsageError(
            f"an item vector's largest magnitude is {8127 * float(scale.max()):.3g} or {8127 * float(scale.min()):.3g}",
            expected="one that float32 scores leave room for",
            fix="Scale the vectors, or use the engine `native`",
        )
    return query


def _check(table: Table) -> None:
    """Refuse a table that head plans cannot serve."""
    layout = table.layout
    if layout.codec not in PLAN_FORMS:
        raise UsageError(
            f"the engine `tensorrt` does not scan {layout.codec} rows",
            expected=" or ".join(PLAN_FORMS),
            fix="Use the engine `native`",
        )
    if layout.refinement is not None:
        raise UsageError(
            f"the engine `tensorrt` does not read refinement rows, which {table.directory} has",
            expected="a table without them",
            fix="Use the engine `native`",
        )
    if layout.link != EXPONENTIAL:
        raise UsageError(
            f"the engine `tensorrt` computes exponentials, and {table.directory} has the link {layout.link}",
            expected="a table whose link is the exponential",
            fix="Use the engine `native`",
        )
    if layout.tombstones is not None:
        raise UsageError(
            "the engine `tensorrt` cannot scan a table with deleted rows",
            expected="a table without",
            fix="Compact it (fllm-export users compact TABLE), or use the engine `native`",
        )
