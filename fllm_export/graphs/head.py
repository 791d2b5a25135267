"""The head graph: one tile of the user table comes in as an input, its top-K and partial softmax go out.

The tile is an input rather than a constant, so one session or engine serves every tile of every table of the
same width, and a living table needs no new graph. Needs ``onnx`` and NumPy only.

Inputs by form (B items, T rows of the tile, d dims; T is a multiple of the chunk length):

==========  =========================  ==============================  ===========================
form        codes                      item vector                     runs on
==========  =========================  ==============================  ===========================
integer     int8 [T, d]                ``limbs`` int8 [2, B, d] and    ONNX Runtime CPU, bit exact
                                       ``query_scale`` float64 [B]
float       float32/float16 [T, d]     ``item_vector`` float32 [B, d]  ONNX Runtime
int8_limbs  int8 [T, d]                ``limbs`` float32 [2, B, d]     TensorRT and ONNX Runtime
                                       and ``query_scale`` float32 [B]
fp8_limbs   float8e4m3fn [T, d]        ``limbs`` float32 [3, B, d]     TensorRT and ONNX Runtime
                                       and ``query_scale``
==========  =========================  ==============================  ===========================

``limbs`` are the digits of the item's integers (``engines/query.py``), the most significant first: in base 128,
[-64, 63], or in base 32, [-16, 15].

Every form also takes ``scales`` float32 [T], ``valid_rows`` int64 scalar (rows from there on are padding: they
score -inf and count nothing), ``bias`` float32 [T] when built with one and ``k`` int64 scalar when built
without a fixed K. Every form returns ``scores`` float32 [B, K], ``rows`` int64 [B, K] (row within the tile;
equal scores: lower row first), ``m`` float32 [B], the highest score, and ``l`` float32 [B], the sum of
exp(s - m). The forms ``integer`` and ``float`` can also return ``tile_scores`` float32 [B, T], every score, for
selections that are not by score alone. K must not exceed T. A place that no valid row can fill has the score -inf.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from fllm_export.errors import UsageError
from fllm_export.graphs.arithmetic import SCORES, Tile
from fllm_export.graphs.builder import Dim, GraphBuilder
from fllm_export.graphs.selection import select, whole
from fllm_export.plan_forms import PLAN_FORMS

HeadForm = Literal["integer", "float", "int8_limbs", "fp8_limbs"]
CodeType = Literal["int8", "fp8", "fp16", "fp32"]

_CODE_TYPES: dict[HeadForm, tuple[CodeType, ...]] = {
    "integer": ("int8",),
    "float": ("fp32", "fp16"),
    "int8_limbs": ("int8",),
    "fp8_limbs": ("fp8",),
}
_DIGITS = {form.name: form.digits for form in PLAN_FORMS.values()}
_ELEMENTS: dict[CodeType, npt.DTypeLike | int] = {
    "int8": np.int8,
    "fp8": int(TensorProto.FLOAT8E4M3FN),
    "fp16": np.float16,
    "fp32": np.float32,
}


def head_graph(
    form: HeadForm,
    *,
    dim: int,
    k: int | None,
    tile_rows: int | None,
    chunk_rows: int,
    bias: bool,
    codes: CodeType | None = None,
) -> ModelProto:
    """Return the head graph of one form, checked and with all shapes inferred.

    Args:
        form: which arithmetic; see the table above.
        dim: d, the width of the user table.
        k: users to return from a tile; None makes it the input ``k``.
        tile_rows: T; None leaves it free at run time, in multiples of ``chunk_rows``.
        chunk_rows: rows of a chunk in the two-stage selection.
        bias: whether rows have a bias.
        codes: how rows are stored; None takes the form's first choice (fp32 for ``float``, fp8 for ``fp8_limbs``).

    Raises:
        UsageError: a size is not positive, T is not a multiple of the chunk, K exceeds T, or the form does not go with
            the codes or a free K.
    """
    _check_sizes(dim, k, tile_rows, chunk_rows)
    code_type = _check_form(form, codes, k)
    graph = GraphBuilder(f"fllm_head_{form}")
    rows: Dim = "rows" if tile_rows is None else tile_rows
    table = graph.input("codes", _ELEMENTS[code_type], [rows, dim])
    scales = graph.input("scales", np.float32, [rows])
    items = _own_inputs(graph, form, dim)
    offsets = _offsets(graph, scales, rows, bias=bias)
    wanted: int | str = graph.reshape(graph.input("k", np.int64, []), 1) if k is None else k
    tile = Tile(
        codes=table,
        scales=scales,
        offsets=offsets,
        dim=dim,
        chunk_rows=chunk_rows,
        chunks=None if tile_rows is None else tile_rows // chunk_rows,
    )
    chunks = SCORES[form](graph, tile, *items)
    result = select(graph, chunks, wanted)
    places: list[Dim] = ["batch", "k" if k is None else k]
    graph.output("scores", result.scores, np.float32, places)
    graph.output("rows", result.rows, np.int64, places)
    graph.output("m", result.m, np.float32, ["batch"])
    graph.output("l", result.l, np.float32, ["batch"])
    if form not in _DIGITS:
        graph.output("tile_scores", whole(graph, chunks), np.float32, ["batch", rows])
    return graph.model()


def _own_inputs(graph: GraphBuilder, form: HeadForm, dim: int) -> list[str]:
    if form == "integer":
        limbs = graph.input("limbs", np.int8, [2, "batch", dim])
        return [limbs, graph.input("query_scale", np.float64, ["batch"])]
    if form in _DIGITS:
        limbs = graph.input("limbs", np.float32, [_DIGITS[form], "batch", dim])
        return [limbs, graph.input("query_scale", np.float32, ["batch"])]
    return [graph.input("item_vector", np.float32, ["batch", dim])]


def _offsets(graph: GraphBuilder, scales: str, rows: Dim, *, bias: bool) -> str:
    """Append what is added to a row's score: its bias or 0, and -inf from ``valid_rows`` on; float32 [T]."""
    valid_rows = graph.input("valid_rows", np.int64, [])
    own = graph.input("bias", np.float32, [rows]) if bias else graph.constant(0, np.float32)
    total = graph.constant(rows, np.int64) if isinstance(rows, int) else graph.scalar(graph.size(scales, 0))
    row = graph.op("Range", graph.constant(0, np.int64), total, graph.constant(1, np.int64))
    return graph.op("Where", graph.op("Less", row, valid_rows), own, graph.constant(-np.inf, np.float32))


def _check_sizes(dim: int, k: int | None, tile_rows: int | None, chunk_rows: int) -> None:
    for name, size in (("dim", dim), ("k", k), ("tile_rows", tile_rows), ("chunk_rows", chunk_rows)):
        if size is not None and size < 1:
            raise UsageError(f"{name} is {size}", expected="at least 1")
    if tile_rows is None:
        return
    if tile_rows % chunk_rows:
        raise UsageError(
            f"tile_rows is {tile_rows} and chunk_rows {chunk_rows}",
            expected="a tile of whole chunks",
            fix="Round tile_rows up; valid_rows leaves the padding out",
        )
    if k is not None and k > tile_rows:
        raise UsageError(f"k is {k} and a tile has {tile_rows} rows", expected="k within the tile")


def _check_form(form: HeadForm, codes: CodeType | None, k: int | None) -> CodeType:
    if form not in _CODE_TYPES:
        raise UsageError(f"the head form is {form!r}", expected=f"one of {', '.join(_CODE_TYPES)}")
    possible = _CODE_TYPES[form]
    if codes is not None and codes not in possible:
        raise UsageError(f"the head form {form} cannot take {codes} codes", expected=" or ".join(possible))
    if form in _DIGITS and k is None:
        raise UsageError(f"the head form {form} cannot take a free k", expected="a fixed k")
    return codes or possible[0]
