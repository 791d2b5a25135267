"""One pass over the table for the items of a call: every slice through the plan, then the proof."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np

from fllm_export.engines.base import Answer, Request, told_errors
from fllm_export.engines.partial import F32, F64, I64, Partial
from fllm_export.engines.query import Query
from fllm_export.engines.tensorrt.device_table import Block, DeviceTable
from fllm_export.engines.tensorrt.head_plan import HeadPlan
from fllm_export.engines.tensorrt.lane import RESULTS, Lane, Slice
from fllm_export.engines.tensorrt.proof import ASSUMED, Candidates, Exact, Margin, factor, open_items
from fllm_export.engines.tensorrt.staging import Staging
from fllm_export.table.table import Table

_AHEAD = 2
"""Slices on their way when the clock is looked at."""

_HOST_ROWS = 1 << 16
"""Rows that the host scores at once."""


class HeadPass:
    """Scores all rows for up to as many items as the plan takes.

    Args:
        lane: what runs the plan; nobody else uses it meanwhile.
        head: the plan.
        table: the rows as they are stored, for exact scores.
        rows: the rows on the GPU.
        staging: brings those that are not there; nobody else uses it meanwhile.
        products: rows times items that a slice has at most.
    """

    def __init__(
        self, lane: Lane, head: HeadPlan, table: Table, rows: DeviceTable, staging: Staging, products: int
    ) -> None:
        self._lane, self._head, self._table, self._rows = lane, head, table, rows
        self._staging, self._products = staging, products

    def run(self, query: Query, request: Request) -> Answer:
        """Return the answer for a batch; the first slice is always scored."""
        began = time.perf_counter()
        layout = self._table.layout
        limbs = query.digits(self._head.digits, self._head.base)
        share = factor(layout.codec, layout.dim)
        margin = Margin(query, limbs, self._head.base, share, self._rows.reach, self._rows.most_bias)
        self._lane.begin(limbs, query.scale)
        found = Candidates(request.k, self._head.k, margin)
        scored = self._score_slices(found, request)
        scanned = time.perf_counter()
        exact = Exact(self._table, query, request.k)
        found.hand_over(exact)
        complete = np.full(len(query.scale), scored == layout.rows)
        if request.exact:
            for _, items in self._settle(found.unproven(exact), exact, margin, request):
                complete[items] = False
        ids, scores = exact.users()
        m, total = _at_least(scores, *found.denominator())
        rows_scored = np.full(len(ids), scored)
        logsumexp = Partial(ids, scores, scores, m, total).logsumexp
        return Answer(
            ids=ids,
            keys=scores,
            scores=scores,
            logsumexp=logsumexp,
            rows_scored=rows_scored,
            complete=complete,
            exact=complete & (request.exact and layout.codec not in ASSUMED),
            log_probs_exact=rows_scored == layout.rows,
            log_prob_error=told_errors(np.where(rows_scored == layout.rows, 0.0, np.nan), logsumexp),
            log_probs_certified=rows_scored == layout.rows,
            rows=layout.rows,
            generation=layout.generation,
            scan_ms=(scanned - began) * 1e3,
            merge_ms=(time.perf_counter() - scanned) * 1e3,
        )

    def _score_slices(self, found: Candidates, request: Request) -> int:
        """Put slices on the stream as long as there is time, and return how many rows were scored."""
        ahead = RESULTS if request.deadline is None else _AHEAD
        scored = 0
        for part, address in self._on_gpu():
            if scored and request.expired:
                break
            self._lane.launch(part, address)
            scored += part.valid
            if self._lane.waiting == ahead:
                found.add(self._lane.collect())
        while self._lane.waiting:
            found.add(self._lane.collect())
        return scored

    def _on_gpu(self) -> Iterator[tuple[Slice, int]]:
        """Yield slices whose block the stream has been told to wait for, and where it lies."""
        blocks = self._rows.blocks
        streamed = [block for block in blocks if not block.resident]
        for block in streamed[:1]:
            self._staging.bring(block)
        following = dict(itertools.pairwise(streamed))
        for block in blocks:
            address = self._staging.begin(block, self._lane.stream)
            if block in following:
                self._staging.bring(following[block])
            for part in self._slices(block):
                yield part, address
            self._staging.end(block, self._lane.stream)

    def _slices(self, block: Block) -> Iterator[Slice]:
        """Cut a block into slices of about equal length; those without any row are left out."""
        chunk, items = self._head.chunk_rows, self._lane.items
        most = min(self._products // items, self._head.most_rows(items)) // chunk * chunk
        most = max(most, 2 * self._head.least_rows)
        count = -(-block.layout.rows // most)
        yield from _cut(Slice(block, 0, block.layout.rows), count, chunk)

    def _settle(
        self, unproven: list[tuple[Slice, I64]], exact: Exact, margin: Margin, request: Request
    ) -> list[tuple[Slice, I64]]:
        """Look again, in halves, at slices that rows may be missing of; the host scores what cannot be halved.

        Returns:
            What there was no time for.
        """
        while unproven and not request.expired:
            part, items = unproven.pop()
            # An item of zeros makes all rows equal; to look again tells nothing of them.
            known = exact.is_zero(items) | np.full(len(items), part.rows < 2 * self._head.least_rows)
            _score_on_host(part, items[known], exact)
            items = items[~known]
            if not len(items):
                continue
            address = self._staging.begin(part.block, self._lane.stream)
            for half in _cut(part, 2, self._head.chunk_rows):
                self._lane.launch(half, address)
                scored = self._lane.collect()
                for item in items:
                    likely = margin.above(scored.scores[item : item + 1], np.array([item]))[0] >= exact.threshold(item)
                    exact.offer(int(item), scored.rows[item, likely & ~np.isneginf(scored.scores[item])])
                left = open_items(margin, exact, scored.scores[items, -1], items)
                if half.valid > self._head.k and len(left):
                    unproven.append((half, left))
            self._staging.end(part.block, self._lane.stream)
        return unproven


def _score_on_host(part: Slice, items: I64, exact: Exact) -> None:
    for first in range(0, part.valid if len(items) else 0, _HOST_ROWS):
        rows = part.first_row + np.arange(first, min(first + _HOST_ROWS, part.valid))
        for item in items:
            exact.offer(int(item), rows)


def _cut(part: Slice, count: int, chunk_rows: int) -> Iterator[Slice]:
    """Yield the parts of a slice, whole chunks, as far as they have rows of the table."""
    chunks = part.rows // chunk_rows
    edges = [part.first + chunks * i // count * chunk_rows for i in range(count + 1)]
    for first, last in itertools.pairwise(edges):
        if first < part.block.rows:
            yield Slice(part.block, first, last - first)


def _at_least(scores: F32, m: F64, total: F64) -> tuple[F64, F64]:
    """Return the denominator, or that of the users found where it is larger: no probability may exceed 1."""
    peak = scores.max(1).astype(np.float64)
    found = np.exp(scores - peak[:, None]).sum(1)
    low = peak + np.log(found) > m + np.log(total)
    return np.where(low, peak, m), np.where(low, found, total)
