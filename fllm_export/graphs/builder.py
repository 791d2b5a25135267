"""Writing an ONNX graph node by node, with names that are the same on every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

OPSET = 20
"""Opset of every exported graph: what TensorRT 11 parses and ONNX Runtime of the last years runs."""

IR_VERSION = 10
"""ONNX IR version that belongs to the opset; newer ones are refused by older ONNX Runtimes for no gain."""

PRODUCER = "fllm-export"

Dim = int | str
"""A static size, or the name of a size that is free at run time."""

_TYPES: dict[Any, int] = {
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.uint8): TensorProto.UINT8,
}


class GraphBuilder:
    """Collects inputs, constants, nodes and outputs in order; :meth:`model` checks and returns the model.

    Values are known by name. A node's output is called ``<operator>_<number>``, so equal calls give equal bytes.

    Args:
        name: the graph's name.
        prefix: put before the names of nodes and constants; the body of an ``If`` needs one, because ONNX wants
            names to differ from those of the graph around it.
    """

    def __init__(self, name: str, prefix: str = "") -> None:
        self._name = name
        self._prefix = prefix
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []

    def input(self, name: str, dtype: npt.DTypeLike | int, shape: Sequence[Dim]) -> str:
        """Declare a graph input; ``dtype`` is NumPy's, or ONNX's number where NumPy has none (float 8)."""
        self._inputs.append(helper.make_tensor_value_info(name, _element_type(dtype), list(shape)))
        return name

    def output(self, name: str, value: str, dtype: npt.DTypeLike, shape: Sequence[Dim]) -> None:
        """Declare that the graph returns ``value`` under the name ``name``."""
        self.named(name, "Identity", value)
        self._outputs.append(helper.make_tensor_value_info(name, _element_type(dtype), list(shape)))

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Return the name of a constant tensor; equal constants are stored once."""
        array = np.asarray(value, dtype)
        text = "x".join(str(size) for size in array.shape) or "scalar"
        name = f"{self._prefix}constant_{array.dtype.name}_{text}_{array.tobytes().hex()}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def float8(self, value: float) -> str:
        """Return the name of a scalar constant of type float8e4m3fn."""
        name = f"{self._prefix}constant_float8_{value:g}"
        self._constants.setdefault(name, helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, [], [value]))
        return name

    def weight(self, array: npt.NDArray[Any]) -> str:
        """Store a trained tensor and return its name."""
        name = f"{self._prefix}weight_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def named(self, output: str, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node whose output is called ``output``."""
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=f"make_{output}", **attributes))
        return output

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return that output's name; an empty input name means none."""
        return self.ops(operator, *inputs, outputs=1, **attributes)[0]

    def ops(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Append a node with several outputs and return their names."""
        stem = f"{self._prefix}{operator}_{len(self._nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=stem, **attributes))
        return names

    def cast(self, value: str, dtype: npt.DTypeLike) -> str:
        """Append a conversion to ``dtype``."""
        return self.op("Cast", value, to=_element_type(dtype))

    def reshape(self, value: str, *shape: int) -> str:
        """Append a reshape; 0 keeps a size and -1 is worked out."""
        return self.op("Reshape", value, self.constant(shape, np.int64))

    def scalar(self, value: str) -> str:
        """Append the reshape of a one-element tensor to no dimension at all."""
        return self.op("Squeeze", value)

    def size(self, value: str, axis: int) -> str:
        """Append the run-time size of ``value`` along ``axis``, int64 [1]."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def splice_into(self, graph: GraphProto, place: int) -> None:
        """Insert this builder's nodes into another graph before its node number ``place``, with their constants."""
        rest = list(graph.node)[place:]
        del graph.node[place:]
        graph.node.extend([*self._nodes, *rest])
        graph.initializer.extend(self._constants.values())

    def branch(self, output: str, dtype: npt.DTypeLike, shape: Sequence[Dim]) -> GraphProto:
        """Return this builder's nodes as the body of an ``If``, which may use values of the graph around it."""
        info = helper.make_tensor_value_info(output, _element_type(dtype), list(shape))
        return helper.make_graph(self._nodes, self._name, [], [info], list(self._constants.values()))

    def model(self) -> ModelProto:
        """Return the checked model: valid ONNX, and strict shape inference finds no contradiction."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, list(self._constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=PRODUCER
        )
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def _element_type(dtype: npt.DTypeLike | int) -> int:
    return dtype if isinstance(dtype, int) else _TYPES[np.dtype(dtype)]
