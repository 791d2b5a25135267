"""The encoder's graph in lower precision: products with weights in half precision or float 8, the rest in float32.

Such products are nearly all of an encoder's arithmetic and weights nearly all of its bytes. Norms, attention and the
residual stream stay in float32, so that masks of -FLT_MAX and the large activations of some channels do no harm.
TensorRT is strongly typed and does what the graph says; the casts around a product fuse with their neighbours.
Attention's own products are left alone for one more reason: TensorRT-RTX 1.7 ends with an internal error when they are
in half precision around a softmax in float32, and they are few for texts of some hundred tokens.

The two products around the exponential of a ``kernel`` mapper stay in float32 too. The second is by K^(-1/2), a matrix
that is large along the directions in which the kernel's features hardly differ. Errors of the item's own vector do
not lie along them, so the encoder before may be lowered. The rounding of each single feature does: in half precision
it would be tens of times the error of the item's vector (docs/guides/export.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fllm_export.errors import UsageError
from fllm_export.graphs.precision_names import PRECISIONS, Precision

_HALF: dict[str, tuple[int, Any]] = {
    "fp16": (int(TensorProto.FLOAT16), np.float16),
    "bf16": (int(TensorProto.BFLOAT16), ml_dtypes.bfloat16),
    # Beside float 8 the embedding tables are kept in half precision.
    "fp8": (int(TensorProto.FLOAT16), np.float16),
}
_PRODUCTS = ("MatMul", "Gemm")
_FP8_MAX = 448.0


def lower_precision(model: ModelProto, precision: Precision, peaks: Mapping[str, float] | None = None) -> ModelProto:
    """Return a copy of an exported encoder with its products in lower precision; inputs and output keep their types.

    Args:
        model: the encoder, float32, with its weights in memory.
        precision: ``fp16`` and ``bf16`` convert the factors; ``fp8`` quantises them, one scale a tensor.
        peaks: for ``fp8`` the largest magnitude of each tensor that :func:`quantised_inputs` names.

    Raises:
        UsageError: there is no such precision, or a peak is missing.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"the precision is {precision!r}", expected="one of " + ", ".join(PRECISIONS))
    lowered = ModelProto()
    lowered.CopyFrom(model)
    _Rewrite(lowered.graph, precision, peaks or {}).run()
    return lowered


def quantised_inputs(model: ModelProto) -> list[str]:
    """Return the tensors that ``fp8`` quantises, in the order of their products, each once."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kernel = kernel_products(model.graph)
    found = [n.input[0] for n in model.graph.node if _has_weight(n, weights) and n.output[0] not in kernel]
    return list(dict.fromkeys(found))


def kernel_products(graph: GraphProto) -> set[str]:
    """Return the results of the matrix products right before and after an exponential; none without ``kernel``."""
    powers = [node for node in graph.node if node.op_type == "Exp"]
    before, after = {node.input[0] for node in powers}, {node.output[0] for node in powers}
    products = [node for node in graph.node if node.op_type in _PRODUCTS]
    return {node.output[0] for node in products if node.output[0] in before or node.input[0] in after}


def _has_weight(node: NodeProto, weights: Mapping[str, Any] | set[str]) -> bool:
    return node.op_type in _PRODUCTS and node.input[1] in weights and node.input[0] not in weights


class _Rewrite:
    """One pass over a graph's nodes, in order; what was converted once is not converted again."""

    def __init__(self, graph: GraphProto, precision: Precision, peaks: Mapping[str, float]) -> None:
        self._graph = graph
        self._fp8 = precision == "fp8"
        self._half_type, self._half = _HALF[precision]
        self._peaks = peaks
        self._kernel = kernel_products(graph)
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[NodeProto] = []
        self._made: dict[str, str] = {}

    def run(self) -> None:
        for node in list(self._graph.node):
            if _has_weight(node, self._weights) and node.output[0] not in self._kernel:
                (self._quantise if self._fp8 else self._halve)(node)
            elif node.op_type == "Gather" and self._is_float_weight(node.input[0]):
                self._look_up(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop_unused()

    def _quantise(self, node: NodeProto) -> None:
        """Put Q and DQ before both factors; TensorRT makes of them a product in float 8 with a float32 result."""
        node.input[0] = self._once(node.input[0], "fp8", self._quantised_activation)
        node.input[1] = self._once(node.input[1], "fp8", self._quantised_weight)
        self._nodes.append(node)

    def _quantised_activation(self, name: str) -> str:
        if name not in self._peaks:
            raise UsageError(f"the tensor {name} has no peak", expected="a peak for each of quantised_inputs")
        scale, zero = self._scale(name, self._peaks[name]), self._zero()
        codes = self._append("QuantizeLinear", f"{name}_fp8", name, scale, zero)
        return self._append("DequantizeLinear", f"{name}_from_fp8", codes, scale, zero)

    def _quantised_weight(self, name: str) -> str:
        array = numpy_helper.to_array(self._weights[name])
        peak = float(np.abs(array).max(initial=0.0))
        step = np.float32(max(peak, float(np.finfo(np.float32).tiny)) / _FP8_MAX)
        codes = self._store(f"{name}_fp8", (array / step).astype(ml_dtypes.float8_e4m3fn))
        return self._append("DequantizeLinear", f"{name}_from_fp8", codes, self._scale(name, peak), self._zero())

    def _scale(self, name: str, peak: float) -> str:
        step = np.float32(max(peak, float(np.finfo(np.float32).tiny)) / _FP8_MAX)
        return self._store(f"{name}_fp8_scale", np.array(step, np.float32))

    def _zero(self) -> str:
        return self._once("fp8", "zero", lambda _: self._store("fp8_zero", np.array(0, ml_dtypes.float8_e4m3fn)))

    def _halve(self, node: NodeProto) -> None:
        """Convert the factors, and the result back."""
        for i, name in enumerate(node.input):
            if name:
                node.input[i] = self._once(name, "half", self._in_half)
        self._back_to_float(node)

    def _look_up(self, node: NodeProto) -> None:
        """Keep an embedding table in half precision, and convert the rows that are looked up."""
        node.input[0] = self._once(node.input[0], "half", self._in_half)
        self._back_to_float(node)

    def _back_to_float(self, node: NodeProto) -> None:
        result = node.output[0]
        node.output[0] = f"{result}_half"
        self._nodes.append(node)
        self._append("Cast", result, node.output[0], to=int(TensorProto.FLOAT))

    def _in_half(self, name: str) -> str:
        if name in self._weights:
            return self._store(f"{name}_half", numpy_helper.to_array(self._weights[name]).astype(self._half))
        return self._append("Cast", f"{name}_to_half", name, to=self._half_type)

    def _is_float_weight(self, name: str) -> bool:
        return name in self._weights and self._weights[name].data_type == TensorProto.FLOAT

    def _once(self, name: str, form: str, make: Any) -> str:
        key = f"{name}:{form}"
        if key not in self._made:
            self._made[key] = make(name)
        return self._made[key]

    def _append(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=f"make_{output}", **attributes))
        return output

    def _store(self, name: str, array: npt.NDArray[Any]) -> str:
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(array, name)
            self._graph.initializer.append(self._weights[name])
        return name

    def _drop_unused(self) -> None:
        """Remove the float32 weights that nothing reads any more."""
        read = {name for node in self._graph.node for name in node.input}
        read |= {output.name for output in self._graph.output}
        read |= {name for node in self._graph.node for inner in _inner_names(node) for name in inner}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        # Shapes inferred for float32 no longer tell the truth about types.
        del self._graph.value_info[:]


def _inner_names(node: NodeProto) -> list[list[str]]:
    """Return what the nodes of a node's own graphs (If, Loop) read."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [list(inner.input) for body in bodies for inner in body.node]
