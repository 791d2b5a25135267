"""Which head graphs go into a bundle, by the codec of its user table."""

from __future__ import annotations

from onnx import ModelProto, helper

from fllm_export.graphs.head import CodeType, head_graph
from fllm_export.plan_forms import PLAN_FORMS, PlanForm

CHUNK_ROWS = 1024
"""Written into each graph's metadata as ``chunk_rows``: what the graph is fed must have whole chunks."""

TENSORRT_K = 256

_INTEGERS = ("int8", "int4row", "int2", "int1")
"""Codecs whose values are integers of 8 bits at most: what decodes them feeds the graph int8."""


def bundle_heads(quant: str, dim: int, *, bias: bool) -> dict[str, ModelProto]:
    """Return the head graphs of a bundle by file name.

    ``tile`` is what ONNX Runtime runs on the CPU, with any number of rows and any K. The other is what TensorRT plans
    are built of, for the codecs that TensorRT multiplies as they are, with a K of 256.

    Args:
        quant: codec of the table.
        dim: dimension of a user row.
        bias: whether rows have a bias.
    """
    if quant in _INTEGERS:
        tile = head_graph("integer", dim=dim, k=None, tile_rows=None, chunk_rows=CHUNK_ROWS, bias=bias)
    else:
        codes: CodeType = "fp16" if quant == "fp16" else "fp32"
        tile = head_graph("float", dim=dim, k=None, tile_rows=None, chunk_rows=CHUNK_ROWS, bias=bias, codes=codes)
    form = PLAN_FORMS.get(quant)
    planned: dict[str, ModelProto] = (
        {} if form is None else {form.name: tensorrt_head(form, dim, bias=bias, k=TENSORRT_K)}
    )
    heads = {"tile": tile, **planned}
    helper.set_model_props(tile, {"chunk_rows": str(CHUNK_ROWS)})
    return heads


def tensorrt_head(form: PlanForm, dim: int, *, bias: bool, k: int) -> ModelProto:
    """Return a head graph for TensorRT whose tile is of free size."""
    head = head_graph(form.name, dim=dim, k=k, tile_rows=None, chunk_rows=CHUNK_ROWS, bias=bias)
    helper.set_model_props(head, {"chunk_rows": str(CHUNK_ROWS), "k": str(k)})
    return head
