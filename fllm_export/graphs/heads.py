"""Which head graphs go into a bundle, by the codec of its user table."""

from __future__ import annotations

from onnx import ModelProto, helper

from fllm_export.graphs.arithmetic import FP8_DIGITS, INT8_DIGITS
from fllm_export.graphs.head import CodeType, HeadForm, head_graph

CHUNK_ROWS = 1024
"""Written into each graph's metadata as ``chunk_rows``: what the graph is fed must have whole chunks."""

TENSORRT_CODECS = ("int8", "fp8")
"""Codecs whose rows TensorRT multiplies as they are."""

TENSORRT_K = 256
TENSORRT_TILE_ROWS = 65_536


def bundle_heads(quant: str, dim: int, *, bias: bool) -> dict[str, ModelProto]:
    """Return the head graphs of a bundle by file name.

    ``tile`` is what ONNX Runtime runs on the CPU, with any number of rows and any K. The others are for TensorRT,
    for the codecs that it multiplies as they are: K is 256, and ``w8a16`` has tiles of 65,536 rows. Plans are built of
    the form with limbs, which the engine ``tensorrt`` needs for exact answers; the others are for servers that run
    graphs by themselves.

    Args:
        quant: codec of the table.
        dim: numbers in a row.
        bias: whether rows have a bias.
    """
    if quant == "int8":
        tile = head_graph("integer", dim=dim, k=None, tile_rows=None, chunk_rows=CHUNK_ROWS, bias=bias)
    else:
        codes: CodeType = "fp16" if quant == "fp16" else "fp32"
        tile = head_graph("float", dim=dim, k=None, tile_rows=None, chunk_rows=CHUNK_ROWS, bias=bias, codes=codes)
    heads = {"tile": tile, **(tensorrt_heads(quant, dim, bias=bias) if quant in TENSORRT_CODECS else {})}
    helper.set_model_props(tile, {"chunk_rows": str(CHUNK_ROWS)})
    return heads


def plan_form(quant: str) -> HeadForm:
    """Return the form of a head plan; ``quant`` is one of :data:`TENSORRT_CODECS`."""
    return "int8_limbs" if quant == "int8" else "fp8_limbs"


def plan_digits(quant: str) -> int:
    """Return how many digits of an item's whole numbers that form takes."""
    return (INT8_DIGITS if quant == "int8" else FP8_DIGITS).count


def tensorrt_head(form: HeadForm, dim: int, *, bias: bool, k: int) -> ModelProto:
    """Return a head graph for TensorRT whose tile is of free size."""
    head = head_graph(form, dim=dim, k=k, tile_rows=None, chunk_rows=CHUNK_ROWS, bias=bias)
    helper.set_model_props(head, {"chunk_rows": str(CHUNK_ROWS), "k": str(k)})
    return head


def tensorrt_heads(quant: str, dim: int, *, bias: bool) -> dict[str, ModelProto]:
    """Return the head graphs for TensorRT by form; ``quant`` is one of :data:`TENSORRT_CODECS`."""
    stored: CodeType = "int8" if quant == "int8" else "fp8"
    whole: tuple[HeadForm, ...] = (plan_form(quant), "w8a8" if quant == "int8" else "fp8")
    transposed = head_graph(
        "w8a16",
        dim=dim,
        k=TENSORRT_K,
        tile_rows=TENSORRT_TILE_ROWS,
        chunk_rows=CHUNK_ROWS,
        bias=bias,
        codes=stored,
    )
    helper.set_model_props(transposed, {"chunk_rows": str(CHUNK_ROWS), "k": str(TENSORRT_K)})
    return {**{form: tensorrt_head(form, dim, bias=bias, k=TENSORRT_K) for form in whole}, "w8a16": transposed}
