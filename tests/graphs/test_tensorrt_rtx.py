"""TensorRT-RTX builds the graphs ahead of time, without a GPU, and multiplies the table in 8 bits uncopied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fllm_export.engines.tensorrt.library import Library, open_library
from fllm_export.engines.tensorrt.plan import read_header
from fllm_export.errors import BundleError, ParityError
from fllm_export.graphs.builder import GraphBuilder
from fllm_export.graphs.encoder import export_encoder
from fllm_export.graphs.head import CodeType, HeadForm, head_graph
from fllm_export.graphs.precision import lower_precision, quantised_inputs
from fllm_export.graphs.precision_names import Precision
from fllm_export.plan_forms import PLAN_FORMS
from fllm_export.plans.builder import Built, Profile, build_plan
from fllm_export.plans.layers import table_is_fused
from fllm_export.plans.profiles import encoder_profiles, head_profiles

from .conftest import MakeEncoder, make_batch

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

DIM, CHUNK, K = 128, 128, 100
TARGETS = ("sm89", "sm120")


@pytest.fixture(scope="module")
def library() -> Library:
    return open_library("tensorrt_rtx")


def build(library: Library, model: onnx.ModelProto, folder: Path, profiles: list[Profile], target: str) -> Built:
    path = folder / "model.onnx"
    onnx.save(model, path)
    built = build_plan(library, path, profiles, target)
    (folder / "model.plan").write_bytes(built.plan)
    header = read_header(folder / "model.plan")
    assert header is not None
    assert (header.version, header.architectures) == (library.version, (target,))
    return built


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("codes", "tile_rows"), [("int8", None), ("fp8", None), ("int8", 8192), ("fp8", 8192)])
def test_the_table_goes_into_the_product_as_it_lies(
    library: Library, codes: CodeType, tile_rows: int | None, bias: bool, target: str, tmp_path: Path
) -> None:
    form: HeadForm = "int8_limbs" if codes == "int8" else "fp8_limbs"
    model = head_graph(form, dim=DIM, k=K, tile_rows=tile_rows, chunk_rows=CHUNK, bias=bias, codes=codes)
    profiles = head_profiles(DIM, 32, CHUNK, K, PLAN_FORMS[codes].digits)
    built = build(library, model, tmp_path, profiles, target)
    assert table_is_fused(built.layers, form) is True


def test_more_users_than_one_topk_may_return(library: Library, tmp_path: Path) -> None:
    model = head_graph("int8_limbs", dim=64, k=5000, tile_rows=None, chunk_rows=1024, bias=False)
    built = build(library, model, tmp_path, head_profiles(64, 4, 1024, 5000, 2), "sm89")
    assert table_is_fused(built.layers, "int8_limbs") is True


def test_a_graph_that_expands_the_table_is_found_out(library: Library, tmp_path: Path) -> None:
    graph = GraphBuilder("expands")
    codes, item = graph.input("codes", np.int8, ["rows", DIM]), graph.input("item_vector", np.float32, ["batch", DIM])
    rows = graph.op("Mul", graph.cast(codes, np.float16), graph.constant(0.5, np.float16))
    product = graph.op("MatMul", graph.cast(item, np.float16), graph.op("Transpose", rows, perm=[1, 0]))
    graph.output("scores", graph.cast(product, np.float32), np.float32, ["batch", "rows"])
    sizes = head_profiles(DIM, 4, CHUNK, K, 1)[1]
    profiles = [{"codes": sizes["codes"], "item_vector": ((1, DIM), (4, DIM), (4, DIM))}]
    built = build(library, graph.model(), tmp_path, profiles, "sm89")
    with pytest.raises(ParityError, match="reads the user table by"):
        table_is_fused(built.layers, "int8_limbs")


def test_what_is_no_graph_is_refused_with_the_parser_s_words(library: Library, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot parse"):
        build_plan(library, tmp_path / "broken.onnx", [], "sm89")


@pytest.fixture(scope="module", params=["minilm", "llama"])
def exported(
    request: pytest.FixtureRequest,
    make_encoder: MakeEncoder,
    minilm_dir: Path,
    tiny_llama_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> onnx.ModelProto:
    minilm = request.param == "minilm"
    encoder = make_encoder(minilm_dir if minilm else tiny_llama_dir, "mean" if minilm else "last", "linear")
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export_encoder(encoder, path, example=make_batch(2, 7, "left", 40))
    return onnx.load(path)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("precision", "factor"), [("fp16", "Half"), ("bf16", "BFloat16"), ("fp8", "FP8")])
def test_encoders_build_with_their_products_in_low_precision(
    library: Library, exported: onnx.ModelProto, precision: Precision, factor: str, target: str, tmp_path: Path
) -> None:
    quantised = quantised_inputs(exported)
    lowered = lower_precision(exported, precision, dict.fromkeys(quantised, 10.0))
    steps: list[tuple[int, int]] = []
    path = tmp_path / "model.onnx"
    onnx.save(lowered, path)
    built = build_plan(
        library, path, encoder_profiles(64, 8), target, progress=lambda stage, done, total: steps.append((done, total))
    )
    products = [layer for layer in built.layers if layer.kind in ("gemm", "runtime_fusion")]
    # Products of one input may become one; every input must reach one in the precision.
    assert sum(any(kind == factor for _, kind in layer.inputs) for layer in products) >= len(quantised) // 2
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1]


def test_a_kernel_s_products_are_float32_in_the_plan(
    library: Library, make_encoder: MakeEncoder, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    encoder = make_encoder(tiny_llama_dir, "last", "kernel", ["tanh", "normalize"])
    export_encoder(encoder, tmp_path / "model.onnx", example=make_batch(2, 7, "left", 40))
    lowered = lower_precision(onnx.load(tmp_path / "model.onnx"), "fp16")
    onnx.save(lowered, tmp_path / "lowered.onnx")
    for tf32 in (True, False):
        built = build_plan(library, tmp_path / "lowered.onnx", encoder_profiles(64, 8), "sm120", tf32=tf32)
        powers = [layer for layer in built.layers if "Exp" in layer.name and layer.kind in ("gemm", "runtime_fusion")]
        assert powers, "the exponential is fused with its product"
        assert {kind for layer in powers for _, kind in layer.inputs} == {"Float"}
        assert any(kind == "Half" for layer in built.layers for _, kind in layer.inputs)
