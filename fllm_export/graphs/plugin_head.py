"""The head graph of one node: the layer FllmScan, which a plugin of TensorRT brings (docs/guides/tensorrt.md).

It takes the inputs and gives the outputs of the forms ``w8a8`` and ``fp8`` of :mod:`fllm_export.graphs.head` under the
same names, with the exact scores of the other engines instead of those of an item vector in 8 bits, and with any
number of rows. ONNX Runtime cannot run it. TensorRT's parser looks the node up among its plugins by operator, version
and namespace.
"""

from __future__ import annotations

from typing import Literal

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from fllm_export.errors import UsageError
from fllm_export.graphs.builder import IR_VERSION, OPSET, PRODUCER, Dim

PLUGIN = "FllmScan"
PLUGIN_VERSION = "1"
PLUGIN_NAMESPACE = "fllm"
MAX_DIM = 16384
"""The widest rows that the scan reads."""

_CODES = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


def plugin_head_graph(codes: Literal["int8", "fp8"], *, dim: int, k: int, bias: bool) -> ModelProto:
    """Return the checked head graph; rows of a tile and items are free at run time.

    Args:
        codes: how rows are stored.
        dim: d, the width of the user table.
        k: users to return from a tile, which may be more than it has.
        bias: whether rows have a bias.

    Raises:
        UsageError: the codes are of another kind, or a size is out of range.
    """
    if codes not in _CODES:
        raise UsageError(f"the plugin's head was asked for with {codes} codes", expected=" or ".join(_CODES))
    for name, size, most in (("dim", dim, MAX_DIM), ("k", k, 2**31 - 1)):
        if not 1 <= size <= most:
            raise UsageError(f"{name} is {size}", expected=f"1 to {most}")
    row_bias = [_value("bias", TensorProto.FLOAT, "rows")] if bias else []
    inputs = [
        _value("codes", _CODES[codes], "rows", dim),
        _value("scales", TensorProto.FLOAT, "rows"),
        _value("valid_rows", TensorProto.INT64),
        _value("item_vector", TensorProto.FLOAT, "batch", dim),
        *row_bias,
    ]
    outputs = [
        _value("scores", TensorProto.FLOAT, "batch", k),
        _value("rows", TensorProto.INT64, "batch", k),
        _value("m", TensorProto.FLOAT, "batch"),
        _value("l", TensorProto.FLOAT, "batch"),
    ]
    node = helper.make_node(
        PLUGIN,
        [value.name for value in inputs],
        [value.name for value in outputs],
        name="scan",
        domain=PLUGIN_NAMESPACE,
        k=k,
        plugin_version=PLUGIN_VERSION,
        plugin_namespace=PLUGIN_NAMESPACE,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(PLUGIN_NAMESPACE, int(PLUGIN_VERSION))]
    graph = helper.make_graph([node], f"fllm_head_plugin_{codes}", inputs, outputs)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(name: str, element: int, *shape: Dim) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element, list(shape))
