"""The same int8 rows as ONNX Runtime would be given them at its best: constant, prepacked, selected in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.native.population import F32
from benchmarks.native.truth import I64
from fllm_export.table.table import Table

CHUNK_ROWS = (131_072, 524_288, 2_097_152)
"""Rows of one MatMulNBits: what is best depends on the cache, so all are tried."""


class OnnxHead:
    """MatMulNBits (8 bits, block of one row's numbers, accuracy level 4) and TopK for each chunk of rows, then TopK.

    The product quantises the item vector to int8, which our engine does not: its recall is less.

    Args:
        directory: an int8 table whose dim is a power of two of at least 16: one block is one row.
        k: users an item.
        threads: inside one call.
        chunk_rows: rows of one MatMulNBits.
        log_probs: also return the softmax denominator's logarithm.
    """

    def __init__(self, directory: Path, k: int, threads: int, chunk_rows: int, *, log_probs: bool = False) -> None:
        import onnxruntime

        model = _model(Table(directory), k, chunk_rows, log_probs=log_probs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def topk(self, z: F32) -> I64:
        """Return the ids [B, k], best first."""
        ids: I64 = self._session.run(None, {"z": z})[0]
        return ids


def _model(table: Table, k: int, chunk_rows: int, *, log_probs: bool) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []
    parts: dict[str, list[str]] = {"scores": [], "ids": [], "logsumexp": []}

    def constant(name: str, array: npt.NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        nodes.append(helper.make_node(operator, inputs, outputs, **attributes))

    dim = table.layout.dim
    constant("k", np.array([k], np.int64))
    constant("axis", np.array([1], np.int64))
    for number, (codes, scales, first) in enumerate(_chunks(table, chunk_rows)):
        # Zero point 128, which is what a missing one means for 8 bits.
        weights = (codes.view(np.uint8) ^ 0x80).reshape(len(codes), 1, dim)
        names = [constant(f"codes{number}", weights), constant(f"scales{number}", scales)]
        shape = {"K": dim, "N": len(codes), "bits": 8, "block_size": dim, "accuracy_level": 4}
        node("MatMulNBits", ["z", *names], [f"all{number}"], domain="com.microsoft", **shape)
        chunk_k = constant(f"k{number}", np.array([min(k, len(codes))], np.int64))
        node("TopK", [f"all{number}", chunk_k], [f"scores{number}", f"rows{number}"])
        node("Add", [f"rows{number}", constant(f"first{number}", np.array(first, np.int64))], [f"ids{number}"])
        parts["scores"].append(f"scores{number}")
        parts["ids"].append(f"ids{number}")
        if log_probs:
            node("ReduceLogSumExp", [f"all{number}", "axis"], [f"lse{number}"])
            parts["logsumexp"].append(f"lse{number}")
    node("Concat", parts["scores"], ["scores"], axis=1)
    node("Concat", parts["ids"], ["candidates"], axis=1)
    node("TopK", ["scores", "k"], ["best", "places"])
    node("GatherElements", ["candidates", "places"], ["users"], axis=1)
    outputs = [helper.make_tensor_value_info("users", TensorProto.INT64, None)]
    outputs.append(helper.make_tensor_value_info("best", TensorProto.FLOAT, None))
    if log_probs:
        node("Concat", parts["logsumexp"], ["parts"], axis=1)
        node("ReduceLogSumExp", ["parts", "axis"], ["logsumexp"])
        outputs.append(helper.make_tensor_value_info("logsumexp", TensorProto.FLOAT, None))
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["items", dim])
    graph = helper.make_graph(nodes, "head", [z], outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def _chunks(table: Table, rows: int) -> list[tuple[npt.NDArray[np.int8], F32, int]]:
    """Return codes, scales and the first row's number of runs of rows; ids are the rows' numbers."""
    chunks, first = [], 0
    for shard in table.shards:
        for start in range(0, shard.rows, rows):
            stored = shard.tile(start, min(start + rows, shard.rows)).stored
            chunks.append((stored["codes"].view(np.int8), stored["scales"].view(np.float32), first))
            first += len(stored["scales"])
    return chunks
