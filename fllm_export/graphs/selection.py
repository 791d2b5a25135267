"""The part of the head graph that every form shares: scores in, the exact top-K and the partial softmax out.

Selection has two stages, so that the expensive sort sees few elements. With the rows cut into chunks of
equal length, stage one takes each chunk's maximum and the K chunks that come first by (maximum descending,
chunk ascending); stage two takes the top-K inside those chunks only.

Why that is exact: order all elements by (score descending, row ascending) and let x, in chunk c, be among the
first K. Suppose c is not one of the chosen chunks; then K other chunks precede c. Each of them holds an
element y at its maximum. Either y scores higher than c's maximum and so higher than x, or it scores as c's
maximum, at least as x, and lies in a chunk before c, thus in a lower row. Either way y precedes x. That makes
K elements before x, so x is not among the first K: a contradiction.

ONNX TopK gives equal values lower index first, and the chosen chunks are put back into ascending order
before their rows are read, so equal scores come out lower row first here too.

TensorRT's TopK returns at most 3840 values. A larger K is taken in rounds: what a round has found is lowered to
-inf, and the next takes the best of the rest. The order is kept, equal values included, because a round takes the
first of them and leaves the later ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fllm_export.graphs.builder import GraphBuilder

_LOWEST = float(np.finfo(np.float32).min)

MAX_TENSORRT_K = 3840
"""TensorRT's limit on K of one TopK layer (NvInfer.h, ITopKLayer)."""


@dataclass(frozen=True)
class Chunks:
    """Scores cut into chunks of rows, float32, -inf at rows that are not there.

    Attributes:
        scores: name of the tensor, [items, chunks, length] or [chunks, items, length].
        items_first: which of the two.
        length: rows a chunk.
        count: chunks of the tile, None when only known at run time.
    """

    scores: str
    items_first: bool
    length: int
    count: int | None


@dataclass(frozen=True)
class Selection:
    """Names of the results: ``scores`` float32 and ``rows`` int64 [items, k], ``m`` and ``l`` float32 [items]."""

    scores: str
    rows: str
    m: str
    l: str  # noqa: E741 - the name of the partial sum throughout the project


def select(graph: GraphBuilder, chunks: Chunks, k: int | str) -> Selection:
    """Append the two-stage top-K and the partial softmax sums.

    Args:
        graph: where the nodes go.
        chunks: the scores.
        k: how many rows to return, or the name of an int64 [1] tensor that says so at run time.
    """
    maxima = graph.op("ReduceMax", chunks.scores, graph.constant([2], np.int64), keepdims=0)
    if not chunks.items_first:
        maxima = graph.op("Transpose", maxima, perm=[1, 0])
    m = graph.op("ReduceMax", maxima, graph.constant([1], np.int64), keepdims=1)
    scores, rows = _top(graph, chunks, maxima, k)
    flat_m = graph.reshape(m, -1)
    return Selection(scores, rows, flat_m, _partial_sum(graph, chunks, m))


def whole(graph: GraphBuilder, chunks: Chunks) -> str:
    """Append the scores of the tile in one piece, float32 [items, rows]."""
    items_first = chunks.scores if chunks.items_first else graph.op("Transpose", chunks.scores, perm=[1, 0, 2])
    return graph.reshape(items_first, 0, -1)


def _top(graph: GraphBuilder, chunks: Chunks, maxima: str, k: int | str) -> tuple[str, str]:
    """Append both stages and return (scores, rows), each [items, k]."""
    few_chunks = chunks.count is not None and isinstance(k, int) and chunks.count <= k
    if few_chunks or (isinstance(k, int) and k > MAX_TENSORRT_K):
        # No chunk can be ruled out; nor is it worth it for so many users, who lie in nearly every chunk of a tile.
        return _largest(graph, whole(graph, chunks), k)
    count = graph.constant([k], np.int64) if isinstance(k, int) else k
    chosen = _choose(graph, chunks, maxima, count, static=isinstance(k, int))
    candidates = graph.op("Gather", graph.reshape(chunks.scores, -1, chunks.length), _flat(graph, chunks, chosen))
    scores, places = _largest(graph, graph.reshape(candidates, 0, -1), k)
    length = graph.constant(chunks.length, np.int64)
    slot = graph.op("Div", places, length)
    inside = graph.op("Sub", places, graph.op("Mul", slot, length))
    start = graph.op("Mul", graph.op("GatherElements", chosen, slot, axis=1), length)
    return scores, graph.op("Add", start, inside)


def _largest(graph: GraphBuilder, values: str, k: int | str) -> tuple[str, str]:
    """Append the ``k`` largest of each row, sorted: (values, columns), in rounds where ``k`` is fixed and large."""
    if isinstance(k, str) or k <= MAX_TENSORRT_K:
        count = graph.constant([k], np.int64) if isinstance(k, int) else k
        found = graph.ops("TopK", values, count, outputs=2, axis=1, largest=1, sorted=1)
        return found[0], found[1]
    scores, columns = [], []
    for first in range(0, k, MAX_TENSORRT_K):
        count = graph.constant([min(MAX_TENSORRT_K, k - first)], np.int64)
        best, places = graph.ops("TopK", values, count, outputs=2, axis=1, largest=1, sorted=1)
        scores.append(best)
        columns.append(places)
        nothing = graph.op("Expand", graph.constant(-np.inf, np.float32), graph.op("Shape", best))
        values = graph.op("ScatterElements", values, places, nothing, axis=1)
    return graph.op("Concat", *scores, axis=1), graph.op("Concat", *columns, axis=1)


def _choose(graph: GraphBuilder, chunks: Chunks, maxima: str, k: str, *, static: bool) -> str:
    """Append stage one and return the chosen chunks, ascending, int64 [items, chosen]."""
    if chunks.count is None or not static:
        k = graph.op("Min", k, graph.size(maxima, 1))
    _, best = graph.ops("TopK", maxima, k, outputs=2, axis=1, largest=1, sorted=1)
    # Chunk numbers stay far below 2**24, where float32 is exact; TensorRT sorts floats, not int64.
    ascending = graph.ops("TopK", graph.cast(best, np.float32), k, outputs=2, axis=1, largest=0, sorted=1)
    return graph.cast(ascending[0], np.int64)


def _flat(graph: GraphBuilder, chunks: Chunks, chosen: str) -> str:
    """Append the place of each chosen chunk when items and chunks are one axis, int64 [items, chosen]."""
    items = graph.op(
        "Range",
        graph.constant(0, np.int64),
        graph.scalar(graph.size(chosen, 0)),
        graph.constant(1, np.int64),
    )
    item = graph.reshape(items, -1, 1)
    if not chunks.items_first:
        return graph.op("Add", graph.op("Mul", chosen, graph.size(chunks.scores, 1)), item)
    return graph.op("Add", graph.op("Mul", item, graph.size(chunks.scores, 1)), chosen)


def _partial_sum(graph: GraphBuilder, chunks: Chunks, m: str) -> str:
    """Append sum(exp(s - m)), float32 [items], summed chunk by chunk so that float32 loses little."""
    # Without any valid row m is -inf, and -inf - -inf is not a number.
    shift = graph.op("Max", m, graph.constant(_LOWEST, np.float32))
    shift = graph.reshape(shift, -1, 1, 1) if chunks.items_first else graph.reshape(shift, 1, -1, 1)
    terms = graph.op("Exp", graph.op("Sub", chunks.scores, shift))
    partial = graph.op("ReduceSum", terms, graph.constant([2], np.int64), keepdims=0)
    axis = 1 if chunks.items_first else 0
    return graph.op("ReduceSum", partial, graph.constant([axis], np.int64), keepdims=0)
