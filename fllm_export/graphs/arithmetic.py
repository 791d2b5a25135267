"""How each head form computes its scores: a tile and the item vectors in, chunked float32 scores out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fllm_export.graphs.builder import Dim, GraphBuilder
from fllm_export.graphs.selection import Chunks
from fllm_export.plan_forms import PLAN_FORMS, PlanForm

LIMB_BASE = PLAN_FORMS["int8"].base
"""A quantised query component is ``high * LIMB_BASE + low``, both limbs in [-64, 63]."""

_LIMB_OFFSET = 64
_LARGEST_CODE = 128


@dataclass(frozen=True)
class Tile:
    """Names of a tile's tensors, and its sizes.

    Attributes:
        codes: the stored rows; type and layout are the form's.
        scales: float32 [T].
        offsets: float32 [T], added to every score of the row.
        dim: d.
        chunk_rows: rows a chunk.
        chunks: chunks of the tile, None when only known at run time.
    """

    codes: str
    scales: str
    offsets: str
    dim: int
    chunk_rows: int
    chunks: int | None


def integer_scores(graph: GraphBuilder, tile: Tile, limbs: str, query_scale: str) -> Chunks:
    """Append the exact form: float32(sum * (scale * query_scale) + offset), computed in float64, rounded once.

    The sum over d of code * quantised query is an exact integer. Limbs have 7 bits, so that kernels which add
    two products in saturating 16 bits (AVX2) are exact as well: 2 * 127 * 128 < 2**15.
    """
    count = _count(tile)
    total = _exact_sums(graph, tile, graph.reshape(tile.codes, count, tile.chunk_rows, tile.dim), limbs)
    by_row = graph.reshape(graph.cast(tile.scales, np.float64), count, 1, tile.chunk_rows)
    factor = graph.op("Mul", by_row, graph.reshape(query_scale, 1, -1, 1))
    offset = graph.reshape(graph.cast(tile.offsets, np.float64), count, 1, tile.chunk_rows)
    scores = graph.cast(graph.op("Add", graph.op("Mul", total, factor), offset), np.float32)
    return Chunks(scores, items_first=False, length=tile.chunk_rows, count=tile.chunks)


def _exact_sums(graph: GraphBuilder, tile: Tile, codes: str, limbs: str) -> str:
    """Append the sums over d of code * quantised query, float64 [chunks, items, rows of a chunk].

    A single item is a matrix times two vectors and wants the codes as they lie. More items gain from a
    transposed copy of each chunk, which lets the kernel put rows side by side in its registers.
    """
    shape: list[Dim] = ["chunks", "batch", tile.chunk_rows]
    single = GraphBuilder("single_item", prefix="single_")
    flat = single.op("Transpose", single.reshape(limbs, 2, tile.dim), perm=[1, 0])
    product = single.op("Transpose", single.op("MatMulInteger", codes, flat), perm=[0, 2, 1])
    high, low = single.ops("Split", product, outputs=2, axis=1, num_outputs=2)
    then = single.branch(_joined(single, tile.dim, high, low), np.float64, shape)
    several = GraphBuilder("several_items", prefix="several_")
    # The fast kernels take unsigned times signed; the zero point undoes the shift.
    shifted = several.op("Add", several.cast(limbs, np.int32), several.constant(_LIMB_OFFSET, np.int32))
    pair = several.ops("Split", several.cast(shifted, np.uint8), outputs=2, axis=0, num_outputs=2)
    turned = several.op("Transpose", codes, perm=[0, 2, 1])
    zero = several.constant(_LIMB_OFFSET, np.uint8)
    high, low = (several.op("MatMulInteger", limb, turned, zero) for limb in pair)
    otherwise = several.branch(_joined(several, tile.dim, high, low), np.float64, shape)
    is_single = graph.op("Equal", graph.scalar(graph.size(limbs, 1)), graph.constant(1, np.int64))
    return graph.op("If", is_single, then_branch=then, else_branch=otherwise)


def _joined(graph: GraphBuilder, dim: int, high: str, low: str) -> str:
    """Append high * 128 + low as float64, through int32 as long as that holds the shifted high part."""
    if dim * _LARGEST_CODE * _LIMB_OFFSET * LIMB_BASE < 2**31:
        shifted = graph.op("Mul", high, graph.constant(LIMB_BASE, np.int32))
        return graph.cast(graph.op("Add", shifted, low), np.float64)
    shifted = graph.op("Mul", graph.cast(high, np.float64), graph.constant(LIMB_BASE, np.float64))
    return graph.op("Add", shifted, graph.cast(low, np.float64))


def float_scores(graph: GraphBuilder, tile: Tile, item_vector: str) -> Chunks:
    """Append (z @ codes^T) * scale + offset in float32."""
    product = graph.op("Gemm", item_vector, graph.cast(tile.codes, np.float32), transB=1)
    return _scaled(graph, tile, product, tile.scales)


def limb_scores(graph: GraphBuilder, tile: Tile, limbs: str, query_scale: str, form: PlanForm) -> Chunks:
    """Append the 8-bit product of the rows with all digits of the items' integers, joined in float32.

    The digits are 8-bit numbers as they are, so that nothing of the item is lost: int8 sums are exact until they
    become float32, fp8 sums as exact as the tensor cores' own additions.
    """
    zero = graph.constant(0, np.int8) if form is PLAN_FORMS["int8"] else graph.float8(0.0)
    product = _eight_bit_product(graph, tile, graph.reshape(limbs, -1, tile.dim), zero)
    by_digit = graph.reshape(product, 0, form.digits, -1, tile.chunk_rows)
    total, *rest = (
        graph.reshape(part, 0, -1, tile.chunk_rows)
        for part in graph.ops("Split", by_digit, outputs=form.digits, axis=1, num_outputs=form.digits)
    )
    for part in rest:
        total = graph.op("Add", graph.op("Mul", total, graph.constant(form.base, np.float32)), part)
    return _finished(graph, tile, total, graph.reshape(query_scale, 1, -1, 1))


def _eight_bit_product(graph: GraphBuilder, tile: Tile, factor: str, zero: str) -> str:
    """Append factor [n, d] times the rows, both in 8 bits: float32 [chunks, n, rows of a chunk].

    One product a chunk, of static size, keeps TensorRT from copying the whole table on each call, as it does to pad a
    product whose T is free.
    """
    # TensorRT runs a product in 8 bits only when both scales are constants, one a tensor.
    step = graph.constant(1, np.float32)
    query = graph.op("DequantizeLinear", graph.op("QuantizeLinear", factor, step, zero), step, zero)
    rows = graph.op("DequantizeLinear", tile.codes, step, zero)
    rows = graph.reshape(rows, _count(tile), tile.chunk_rows, tile.dim)
    return graph.op("MatMul", query, graph.op("Transpose", rows, perm=[0, 2, 1]))


def _finished(graph: GraphBuilder, tile: Tile, product: str, item_scales: str) -> Chunks:
    """Append product [chunks, B, rows of a chunk] * item scales * row scales + offsets."""
    by_row = graph.reshape(tile.scales, _count(tile), 1, tile.chunk_rows)
    offset = graph.reshape(tile.offsets, _count(tile), 1, tile.chunk_rows)
    scores = graph.op("Add", graph.op("Mul", graph.op("Mul", product, item_scales), by_row), offset)
    return Chunks(scores, items_first=False, length=tile.chunk_rows, count=tile.chunks)


def _scaled(graph: GraphBuilder, tile: Tile, product: str, scales: str) -> Chunks:
    """Append product [B, T] * scales + offsets, cut into chunks."""
    scores = graph.op("Add", graph.op("Mul", product, scales), tile.offsets)
    chunked = graph.reshape(scores, 0, _count(tile), tile.chunk_rows)
    return Chunks(chunked, items_first=True, length=tile.chunk_rows, count=tile.chunks)


def _count(tile: Tile) -> int:
    return -1 if tile.chunks is None else tile.chunks


SCORES: dict[str, Callable[..., Chunks]] = {
    "integer": integer_scores,
    "float": float_scores,
    **{form.name: partial(limb_scores, form=form) for form in PLAN_FORMS.values()},
}
"""The scoring of each head form; called as ``SCORES[form](graph, tile, *item_inputs)``."""
