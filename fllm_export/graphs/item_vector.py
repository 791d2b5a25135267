"""Pooling, features and mapper as ONNX nodes, for exporters that stop at the encoder's hidden states.

The same computation as :func:`fllm_export.checkpoint.model.pool` and ``ItemEncoder.forward``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from fllm_export.checkpoint.feature_spec import Activation
from fllm_export.checkpoint.features import TINY
from fllm_export.checkpoint.model import Exponential, ItemEncoder, KernelMapper, Pooling
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


def featured(graph: GraphBuilder, x: str, encoder: ItemEncoder) -> str:
    """Append the encoder's features and return them, [batch, width], of the pooled state x."""
    for layer, activation in zip(encoder.features, encoder.features.activations, strict=True):
        if activation is None:
            x = _unit(graph, x)
        else:
            assert isinstance(layer, nn.Linear)
            x = _ACTIVATIONS[activation](graph, _linear(graph, x, layer))
    return x


def mapped(graph: GraphBuilder, x: str, encoder: ItemEncoder) -> str:
    """Append the encoder's mapper and return the item vector, [batch, d], of the features x.

    Raises:
        UsageError: the mapper holds a module that ``make_mapper`` does not make.
    """
    if isinstance(encoder.mapper, KernelMapper):
        x = _unit(graph, x)
    modules = encoder.mapper if isinstance(encoder.mapper, nn.Sequential) else [encoder.mapper]
    for module in modules:
        if isinstance(module, nn.Linear):
            x = _linear(graph, x, module)
        elif isinstance(module, nn.ReLU):
            x = graph.op("Relu", x)
        elif isinstance(module, Exponential):
            x = graph.op("Exp", x)
        elif not isinstance(module, nn.Identity):
            raise UsageError(
                f"the mapper holds a {type(module).__name__}",
                expected="identity, linear, linear_relu, mlp or kernel",
                fix="Export with torch.onnx, which traces any module",
            )
    return graph.op("Relu", x) if encoder.rectified else x


def _linear(graph: GraphBuilder, x: str, layer: nn.Linear) -> str:
    return graph.op("Gemm", x, _stored(graph, layer.weight), _stored(graph, layer.bias), transB=1)


def _unit(graph: GraphBuilder, x: str) -> str:
    """Append what :func:`fllm_export.checkpoint.feature_layers.unit_vectors` computes."""
    last, tiny = graph.constant([1], np.int64), graph.constant(TINY, np.float32)
    largest = graph.op("ReduceMax", graph.op("Abs", x), last, keepdims=1)
    scaled = graph.op("Div", x, graph.op("Max", largest, tiny))
    return graph.op("Div", scaled, graph.op("Max", graph.op("ReduceL2", scaled, last, keepdims=1), tiny))


def _gelu(graph: GraphBuilder, x: str) -> str:
    """Append x (1 + erf(x / sqrt 2)) / 2; ONNX has an operator of that name only from opset 20 on."""
    error = graph.op("Erf", graph.op("Mul", x, graph.constant(math.sqrt(0.5), np.float32)))
    return graph.op(
        "Mul",
        graph.op("Mul", x, graph.constant(0.5, np.float32)),
        graph.op("Add", error, graph.constant(1, np.float32)),
    )


_ACTIVATIONS: dict[Activation, Callable[[GraphBuilder, str], str]] = {
    "identity": lambda graph, x: x,
    "tanh": lambda graph, x: graph.op("Tanh", x),
    "relu": lambda graph, x: graph.op("Relu", x),
    "gelu": _gelu,
    "sigmoid": lambda graph, x: graph.op("Sigmoid", x),
}


def _stored(graph: GraphBuilder, parameter: Tensor) -> str:
    return graph.weight(parameter.detach().float().cpu().numpy())
