"""The encoder's graph with integer weights, for CPUs: products with weights in 8 or 4 bits, the rest in float32.

Two forms of a product x W are used, both symmetric. ONNX Runtime fuses and runs both on CPUs.

*MatMulInteger* has one scale per column of W, and one per call for all of x. It is the fastest form, above all for
batches. *MatMulNBits* has a scale for each block of a column of W and of a row of x. It takes longer and is far more
precise where few numbers of x are much larger than the others. That is so behind an activation function: in the second
product of a feed-forward layer, which is recognised by having more rows than columns, and in a ``kernel`` mapper.

In 4 bits every product is a MatMulNBits, but for those of a ``kernel`` mapper, which keep 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fllm_export.encoder_precisions import EncoderPrecision
from fllm_export.errors import UsageError
from fllm_export.graphs.precision import kernel_products

F32 = npt.NDArray[np.float32]

_CONTRIB = "com.microsoft"
_BLOCKS = {8: 128, 4: 32}
_KERNEL_BLOCK = 32
_INT8_ACTIVATIONS = 4
"""The accuracy level of MatMulNBits at which x is rounded to 8 bits."""
_PRODUCTS = ("MatMul", "Gemm")
_LEAST_SHARE = 0.5
_VNNI = ("avx512_vnni", "avx_vnni", "asimddp")


@dataclass(frozen=True)
class Quantised:
    """What became of an encoder's products.

    Attributes:
        precision: ``int8`` or ``int4``.
        reduced_range: whether MatMulInteger's weights have 7 bits, for CPUs whose 8-bit products overflow 16 bits.
        matmul_integer: number of products of that form.
        matmul_nbits: number of products of that form.
        weight_bytes: bytes of the weights of all these products in float32.
        quantised_bytes: bytes of what replaced them.
    """

    precision: EncoderPrecision
    reduced_range: bool
    matmul_integer: int
    matmul_nbits: int
    weight_bytes: int
    quantised_bytes: int


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this CPU lacks instructions that sum products of 8 bits in 32."""
    words = {word for line in cpuinfo.read_text().splitlines() for word in line.partition(":")[2].split()}
    return not words & set(_VNNI)


def quantise_encoder(
    model: ModelProto, precision: EncoderPrecision, *, reduced_range: bool
) -> tuple[ModelProto, Quantised]:
    """Return a copy of an exported encoder with integer weights; inputs and output keep their types.

    Args:
        model: the encoder, float32, with its weights in memory.
        precision: ``int8`` or ``int4``.
        reduced_range: whether MatMulInteger's weights take 7 bits.

    Raises:
        UsageError: less than half of the bytes that products read are weights that could be quantised.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    rewrite = _Rewrite(copy, precision, 63 if reduced_range else 127)
    rewrite.run()
    if not rewrite.before or rewrite.before < _LEAST_SHARE * (rewrite.before + rewrite.left):
        raise UsageError(
            f"{rewrite.before:,} bytes of the encoder's weights can be quantised, and {rewrite.left:,} bytes cannot",
            expected="weights as the second factors of MatMul and Gemm",
            fix="Use the exporter torch, or --encoder-precision fp32",
        )
    forms = rewrite.forms
    return copy, Quantised(precision, reduced_range, forms[0], forms[1], rewrite.before, rewrite.after)


class _Rewrite:
    """One pass over a graph's nodes; a tensor that several products read is rounded once."""

    def __init__(self, model: ModelProto, precision: EncoderPrecision, largest: int) -> None:
        self._model, self._graph = model, model.graph
        self._int4, self._largest = precision == "int4", largest
        self._kernel = kernel_products(model.graph)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: list[NodeProto] = []
        self._rounded: dict[str, tuple[str, str, str]] = {}
        self._stored: dict[str, Any] = {}
        self.before = self.after = self.left = 0
        self.forms = [0, 0]

    def run(self) -> None:
        done = set()
        for node in list(self._graph.node):
            matrix = self._matrix(node)
            if matrix is None:
                self._nodes.append(node)
                continue
            done.add(node.input[1])
            self._replace(node, matrix)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._drop(done)
        if self.forms[1] and all(one.domain != _CONTRIB for one in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))

    def _matrix(self, node: NodeProto) -> F32 | None:
        """Return the weights [in, out] of a product with weights."""
        if node.op_type not in _PRODUCTS or node.input[1] not in self._weights or node.input[0] in self._weights:
            return None
        weights: F32 = numpy_helper.to_array(self._weights[node.input[1]])
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
        if weights.ndim != 2 or weights.dtype != np.float32 or not plain:
            return None
        return np.ascontiguousarray(weights.T) if attributes.get("transB", 0) else weights

    def _replace(self, node: NodeProto, matrix: F32) -> None:
        kernel = node.output[0] in self._kernel
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        result = node.output[0] if bias is None else f"{node.output[0]}_product"
        precise = self._int4 or kernel or matrix.shape[0] > matrix.shape[1]
        if precise:
            bits = 4 if self._int4 and not kernel else 8
            size = _KERNEL_BLOCK if kernel else _BLOCKS[bits]
            self._by_blocks(node.input[0], node.input[1], matrix, result, bits, size)
        else:
            self._by_columns(node.input[0], node.input[1], matrix, result)
        self.forms[precise] += 1
        self.before += matrix.nbytes
        if bias is not None:
            self._append("Add", [result, bias], [node.output[0]])

    def _by_blocks(self, x: str, name: str, matrix: F32, result: str, bits: int, size: int) -> None:
        """Append a MatMulNBits: codes [out, blocks, bytes of a block], 2^(bits - 1) stands for 0."""
        inner, outer = matrix.shape
        stored = self._once(name, bits, lambda: _blocks(matrix, bits, size))
        attributes = {"K": inner, "N": outer, "bits": bits, "block_size": size, "accuracy_level": _INT8_ACTIVATIONS}
        self._append("MatMulNBits", [x, *stored], [result], domain=_CONTRIB, **attributes)

    def _by_columns(self, x: str, name: str, matrix: F32, result: str) -> None:
        """Append a MatMulInteger of x, rounded for each call, and its scaling back to float32."""
        codes, scales = self._once(name, 0, lambda: _columns(matrix, self._largest))
        if x not in self._rounded:
            self._rounded[x] = (f"{x}_uint8", f"{x}_scale", f"{x}_zero")
            self._append("DynamicQuantizeLinear", [x], list(self._rounded[x]))
        rounded, scale, zero = self._rounded[x]
        self._append("MatMulInteger", [rounded, codes, zero], [f"{result}_int32"])
        self._append("Cast", [f"{result}_int32"], [f"{result}_sums"], to=int(TensorProto.FLOAT))
        self._append("Mul", [scale, scales], [f"{result}_scales"])
        self._append("Mul", [f"{result}_sums", f"{result}_scales"], [result])

    def _once(self, name: str, form: int, make: Callable[[], tuple[npt.NDArray[Any], ...]]) -> list[str]:
        names = [f"{name}_codes{form}", f"{name}_scales{form}"]
        if names[0] not in self._stored:
            for stored, array in zip(names, make(), strict=True):
                self._stored[stored] = array
                self.after += array.nbytes
                self._graph.initializer.append(numpy_helper.from_array(array, stored))
        return names

    def _append(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=f"make_{outputs[0]}", **attributes))

    def _drop(self, done: set[str]) -> None:
        """Remove the weights that nothing reads any more, and count those that products still read in float32."""
        readers = [(node.op_type, name) for node in self._graph.node for name in node.input]
        read = {name for _, name in readers}
        for name in {name for operator, name in readers if operator != "Gather"} & self._weights.keys():
            tensor = self._weights[name]
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and min(tensor.dims) > 1:
                self.left += 4 * int(np.prod(tensor.dims))
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read or tensor.name not in done]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        # What was inferred for the products that were replaced no longer holds.
        del self._graph.value_info[:]


def _columns(matrix: F32, largest: int) -> tuple[npt.NDArray[Any], ...]:
    """Return int8 codes [in, out] and float32 scales [out]."""
    scales = _steps(np.abs(matrix).max(0), largest)
    return np.rint(matrix / scales).astype(np.int8), scales


def _blocks(matrix: F32, bits: int, size: int) -> tuple[npt.NDArray[Any], ...]:
    """Return codes uint8 [out, blocks, size x bits / 8] and float32 scales [out, blocks]."""
    inner, outer = matrix.shape
    padded = np.pad(matrix.T, ((0, 0), (0, -inner % size))).reshape(outer, -1, size)
    zero = 1 << (bits - 1)
    scales = _steps(np.abs(padded).max(2), zero - 1)
    codes = (np.rint(padded / scales[:, :, None]) + zero).astype(np.uint8)
    if bits == 4:
        codes = codes[:, :, ::2] | (codes[:, :, 1::2] << 4)
    return np.ascontiguousarray(codes), scales


def _steps(peaks: F32, largest: int) -> F32:
    steps: F32 = np.maximum(peaks / np.float32(largest), np.finfo(np.float32).tiny).astype(np.float32)
    return steps
