"""Pooling and mapper as ONNX nodes, for exporters that stop at the encoder's hidden states.

The same computation as :func:`fllm_export.checkpoint.model.pool` and ``ItemEncoder.forward``.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from fllm_export.checkpoint.model import ItemEncoder, Pooling
from fllm_export.errors import UsageError
from fllm_export.graphs.builder import GraphBuilder


def pooled(graph: GraphBuilder, states: str, attention_mask: str, pooling: Pooling) -> str:
    """Append the pooling of states [batch, sequence, h] and return the pooled state, [batch, h]."""
    one = graph.constant([1], np.int64)
    if pooling == "mean":
        weights = graph.cast(attention_mask, np.float32)
        total = graph.op("MatMul", graph.op("Unsqueeze", weights, one), states)
        count = graph.op("Max", graph.op("ReduceSum", weights, one, keepdims=1), graph.constant(1, np.float32))
        return graph.op("Div", graph.op("Squeeze", total, one), count)
    length = graph.scalar(graph.size(attention_mask, 1))
    positions = graph.op("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))
    real = graph.op("Greater", attention_mask, graph.constant(0, np.int64))
    if pooling == "cls":
        chosen = graph.op("ReduceMin", graph.op("Where", real, positions, length), one, keepdims=1)
    else:
        chosen = graph.op("ReduceMax", graph.op("Mul", graph.cast(real, np.int64), positions), one, keepdims=1)
    return graph.op("GatherND", states, chosen, batch_dims=1)


def mapped(graph: GraphBuilder, x: str, encoder: ItemEncoder) -> str:
    """Append the encoder's mapper and return the item vector, [batch, d].

    Raises:
        UsageError: the mapper holds a module that ``make_mapper`` does not make.
    """
    modules = encoder.mapper if isinstance(encoder.mapper, nn.Sequential) else [encoder.mapper]
    for module in modules:
        if isinstance(module, nn.Linear):
            x = graph.op("Gemm", x, _stored(graph, module.weight), _stored(graph, module.bias), transB=1)
        elif isinstance(module, nn.ReLU):
            x = graph.op("Relu", x)
        elif not isinstance(module, nn.Identity):
            raise UsageError(
                f"the mapper holds a {type(module).__name__}",
                expected="identity, linear, linear_relu or mlp",
                fix="Export with torch.onnx, which traces any module",
            )
    return graph.op("Relu", x) if encoder.rectified else x


def _stored(graph: GraphBuilder, parameter: Tensor) -> str:
    return graph.weight(parameter.detach().float().cpu().numpy())
