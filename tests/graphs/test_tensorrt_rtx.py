"""TensorRT-RTX builds the head graphs ahead of time, without a GPU, and multiplies the table in 8 bits uncopied."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fllm_export.graphs.head import CodeType, HeadForm, head_graph

trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

DIM, CHUNK, K = 128, 128, 100


def build_log(model: bytes, largest_rows: int) -> list[str]:
    """Build an engine for SM 8.9 and return the layers that its log lists."""
    lines: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            lines.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            ranges = [(1, 4, 32) if tensor.name == "item_vector" else (CHUNK, 64 * CHUNK, largest_rows)]
            ranges += [(size, size, size) for size in tuple(tensor.shape)[1:]]
            profile.set_shape(tensor.name, *zip(*ranges, strict=True))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None, lines[-5:]
    return [line for line in "\n".join(lines).split("\n") if line.startswith("Name: ") and "LayerType: " in line]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("form", "codes", "tile_rows"),
    [
        ("w8a16", "int8", 8192),
        ("w8a16", "fp8", 8192),
        ("w8a8", "int8", 8192),
        ("w8a8", "int8", None),
        ("fp8", "fp8", 8192),
        ("fp8", "fp8", None),
    ],
)
def test_the_table_goes_into_the_product_as_it_lies(
    form: HeadForm, codes: CodeType, tile_rows: int | None, bias: bool
) -> None:
    model = head_graph(form, dim=DIM, k=K, tile_rows=tile_rows, chunk_rows=CHUNK, bias=bias, codes=codes)
    layers = build_log(model.SerializeToString(), 1 << 20)
    readers = [layer for layer in layers if re.search(r"Name: codes,", layer.split("Outputs:")[0])]
    assert len(readers) == 1, "the table is read more than once, or not at all"
    kind = re.search(r"LayerType: (\w+)", readers[0])
    assert kind is not None
    # A fused product with its dequantisation is called a runtime fusion; `kgen` would be a copy of the table.
    assert kind[1] == ("runtime_fusion" if form == "w8a16" else "gemm")
    stored = "Datatype: Int8" if codes == "int8" else "Datatype: FP8"
    assert readers[0].split("Outputs:")[0].count(stored) == (1 if form == "w8a16" else 2)
