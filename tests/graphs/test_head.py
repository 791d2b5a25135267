"""Every head form, run by ONNX Runtime, against NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export.engines.query import Query
from fllm_export.errors import UsageError
from fllm_export.graphs.head import CodeType, HeadForm, head_graph
from fllm_export.plan_forms import PLAN_FORMS

Array = npt.NDArray[Any]

FORMS: list[tuple[HeadForm, CodeType]] = [
    ("integer", "int8"),
    ("float", "fp32"),
    ("float", "fp16"),
    ("int8_limbs", "int8"),
    ("fp8_limbs", "fp8"),
]


DIGITS = {form.name: (form.digits, form.base) for form in PLAN_FORMS.values()}


@dataclass(frozen=True)
class Case:
    """One tile, its items and the sizes of the graph that scores them."""

    codes: Array
    scales: Array
    bias: Array | None
    items: Array
    valid_rows: int
    chunk_rows: int
    k: int
    free_rows: bool
    free_k: bool


@st.composite
def cases(draw: st.DrawFn, code_type: CodeType) -> Case:
    """Draw a tile; few distinct codes make ties common."""
    dim = draw(st.sampled_from([1, 3, 8, 17]))
    chunk_rows = draw(st.sampled_from([1, 4, 8]))
    rows = chunk_rows * draw(st.sampled_from([1, 2, 5, 9]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    largest = draw(st.sampled_from([1, 127]))
    numbers = generator.integers(-largest, largest + 1, (rows, dim))
    many = draw(st.booleans())
    codes: Array = numbers.astype({"int8": np.int8, "fp8": ml_dtypes.float8_e4m3fn}.get(code_type, np.float32))
    if code_type == "fp16":
        codes = codes.astype(np.float16)
    equal_scales = draw(st.booleans())
    scales = np.ones(rows) if equal_scales else generator.random(rows) * 1e-3
    return Case(
        codes=codes,
        scales=scales.astype(np.float32),
        bias=generator.integers(-2, 3, rows).astype(np.float32) if draw(st.booleans()) else None,
        items=generator.standard_normal((3 if many else 1, dim)).astype(np.float32),
        valid_rows=draw(st.integers(0, rows)),
        chunk_rows=chunk_rows,
        k=draw(st.integers(1, rows)),
        free_rows=draw(st.booleans()),
        free_k=draw(st.booleans()),
    )


def split_query(items: Array) -> tuple[Array, Array, Array]:
    """Return the quantised query int64 [B, d], its limbs int8 [2, B, d] and its scale float64 [B]."""
    peak = np.abs(items).max(1).astype(np.float64)
    scale = np.where(peak > 0, peak, 1.0) / 8127
    query = np.rint(items / scale[:, None]).astype(np.int64)
    high = (query + 64) // 128
    return query, np.stack([high, query - 128 * high]).astype(np.int8), scale


@lru_cache(maxsize=256)
def session(form: HeadForm, dim: int, k: int | None, rows: int | None, chunk: int, bias: bool, codes: CodeType) -> Any:
    """Load a head graph at ONNX Runtime's default optimisation level."""
    model = head_graph(form, dim=dim, k=k, tile_rows=rows, chunk_rows=chunk, bias=bias, codes=codes)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(form: HeadForm, code_type: CodeType, case: Case) -> dict[str, Array]:
    """Run the case through its graph and return the outputs by name."""
    rows, dim = case.codes.shape
    loaded = session(
        form,
        dim,
        None if case.free_k else case.k,
        None if case.free_rows else rows,
        case.chunk_rows,
        case.bias is not None,
        code_type,
    )
    feed: dict[str, Any] = {
        "codes": case.codes,
        "scales": case.scales,
        "valid_rows": np.array(case.valid_rows, np.int64),
    }
    if code_type == "fp8":
        feed["codes"] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
            case.codes.view(np.uint8), onnx.TensorProto.FLOAT8E4M3FN
        )
    if case.bias is not None:
        feed["bias"] = case.bias
    if case.free_k:
        feed["k"] = np.array(case.k, np.int64)
    if form == "integer":
        _, feed["limbs"], feed["query_scale"] = split_query(case.items)
    elif form in DIGITS:
        query = Query.quantised(case.items)
        feed["limbs"], feed["query_scale"] = query.digits(*DIGITS[form]), query.scale.astype(np.float32)
    else:
        feed["item_vector"] = case.items
    values = {
        name: value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(value)
        for name, value in feed.items()
    }
    names = [output.name for output in loaded.get_outputs()]
    return dict(zip(names, (v.numpy() for v in loaded.run_with_ort_values(names, values)), strict=True))


def expected_scores(form: HeadForm, case: Case) -> Array:
    """Return all scores of the tile in float64 (``integer``: rounded once to float32), -inf at padding."""
    codes = case.codes.astype(np.float64)
    bias = np.zeros(len(codes)) if case.bias is None else case.bias.astype(np.float64)
    if form == "integer":
        query, _, query_scale = split_query(case.items)
        exact = query @ case.codes.astype(np.int64).T
        factor = case.scales.astype(np.float64)[None, :] * query_scale[:, None]
        scores: Array = (exact.astype(np.float64) * factor + bias).astype(np.float32)
    else:
        query = case.items.astype(np.float64)
        if form in DIGITS:
            whole, _, scale = split_query(case.items)
            query = whole * scale[:, None]
        scores = (query @ codes.T) * case.scales + bias
    scores[:, case.valid_rows :] = -np.inf
    return scores


def tolerance(form: HeadForm, case: Case) -> float:
    """Return the largest error of a score: none for ``integer``, else a share of the largest possible sum."""
    if form == "integer":
        return 0.0
    size = np.abs(case.items).sum(1).max() * np.abs(case.codes.astype(np.float64)).max() * case.scales.max()
    return float(2e-6 * size + (1e-6 if case.bias is not None else 0.0)) + 1e-12


def check(form: HeadForm, code_type: CodeType, case: Case) -> None:
    """Run the case and compare everything it returns with NumPy."""
    got = run(form, code_type, case)
    scores = expected_scores(form, case)
    allowed = tolerance(form, case)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : case.k]
    best = np.take_along_axis(scores, order, 1)
    if "tile_scores" in got:
        np.testing.assert_allclose(got["tile_scores"], scores, rtol=0, atol=allowed)
    assert got["scores"].shape == got["rows"].shape == (len(case.items), case.k)
    if form == "integer":
        np.testing.assert_array_equal(got["scores"], best)
        np.testing.assert_array_equal(got["rows"], order)
    np.testing.assert_allclose(got["scores"], best, rtol=0, atol=allowed)
    np.testing.assert_allclose(got["scores"], np.take_along_axis(scores, got["rows"], 1), rtol=0, atol=allowed)
    ranked = np.take_along_axis(got["rows"], np.lexsort((got["rows"], -got["scores"]), axis=1), 1)
    np.testing.assert_array_equal(got["rows"], ranked)
    assert all(len(set(rows)) == case.k for rows in got["rows"].tolist())
    np.testing.assert_array_equal(got["m"], got["scores"][:, 0])
    shift = np.where(np.isfinite(got["m"]), got["m"], 0.0)[:, None].astype(np.float64)
    np.testing.assert_allclose(got["l"], np.exp(scores - shift).sum(1), rtol=2e-5 + 2 * allowed)


@pytest.mark.parametrize(("form", "code_type"), FORMS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_numpy(form: HeadForm, code_type: CodeType, data: st.DataObject) -> None:
    case = data.draw(cases(code_type))
    if form in DIGITS:
        case = Case(**{**vars(case), "free_k": False})
    check(form, code_type, case)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("dim", [128, 2047, 2048])
def test_integer_sums_are_exact_at_the_largest_codes(dim: int, batch: int) -> None:
    generator = np.random.default_rng(0)
    codes = generator.choice(np.array([-128, -127, 127], np.int8), (24, dim))
    items = generator.choice(np.array([-1.0, 1.0], np.float32), (batch, dim))
    items[0] = np.sign(codes[3])
    case = Case(
        codes=codes,
        scales=generator.random(24).astype(np.float32),
        bias=generator.standard_normal(24).astype(np.float32),
        items=items,
        valid_rows=23,
        chunk_rows=8,
        k=10,
        free_rows=True,
        free_k=True,
    )
    check("integer", "int8", case)


@pytest.mark.parametrize(("rows", "chunk_rows", "k"), [(4096, 64, 10), (4096, 16, 100), (4096, 2048, 100)])
@pytest.mark.parametrize("form", ["integer", "int8_limbs"])
def test_many_rows_with_the_same_score_come_out_in_row_order(
    form: HeadForm, rows: int, chunk_rows: int, k: int
) -> None:
    generator = np.random.default_rng(1)
    codes = np.repeat(generator.integers(-3, 4, (4, 8)), rows // 4, axis=0).astype(np.int8)
    generator.shuffle(codes)
    ones = np.ones(rows, np.float32)
    items = generator.standard_normal((2, 8)).astype(np.float32)
    case = Case(codes, ones, None, items, rows - 7, chunk_rows, k, free_rows=True, free_k=False)
    got = run(form, "int8", case)
    top = expected_scores(form, case)
    for item in range(2):
        tied = np.flatnonzero(top[item] == top[item].max())[:k]
        np.testing.assert_array_equal(got["rows"][item], tied)


def test_partial_sums_of_many_rows_lose_little() -> None:
    rows = 1 << 17
    generator = np.random.default_rng(3)
    codes = generator.standard_normal((rows, 8)).astype(np.float32)
    items = np.zeros((1, 8), np.float32)
    items[0, 0] = 0.01
    case = Case(codes, np.ones(rows, np.float32), None, items, rows, 512, 10, free_rows=True, free_k=False)
    got = run("float", "fp32", case)
    scores = expected_scores("float", case)
    total = np.log(np.exp(scores).sum(1))
    np.testing.assert_allclose(got["m"] + np.log(got["l"]), total, rtol=2e-7)


@pytest.mark.parametrize(("form", "code_type"), FORMS)
@pytest.mark.parametrize("tile_rows", [None, 1024])
def test_graphs_are_valid_and_the_same_every_time(form: HeadForm, code_type: CodeType, tile_rows: int | None) -> None:
    models = [
        head_graph(form, dim=64, k=10, tile_rows=tile_rows, chunk_rows=64, bias=True, codes=code_type) for _ in range(2)
    ]
    assert models[0].SerializeToString(deterministic=True) == models[1].SerializeToString(deterministic=True)
    onnx.checker.check_model(models[0], full_check=True)
    onnx.shape_inference.infer_shapes(models[0], check_type=True, strict_mode=True, data_prop=True)
    assert {opset.domain: opset.version for opset in models[0].opset_import} == {"": 20}
    shapes = {
        output.name: [d.dim_value or d.dim_param for d in output.type.tensor_type.shape.dim]
        for output in models[0].graph.output
    }
    expected: dict[str, list[Any]] = {"scores": ["batch", 10], "rows": ["batch", 10], "m": ["batch"], "l": ["batch"]}
    if form in ("integer", "float"):
        expected["tile_scores"] = ["batch", tile_rows or "rows"]
    assert shapes == expected


@pytest.mark.parametrize(
    ("form", "sizes", "message"),
    [
        ("integer", {"dim": 0}, "dim is 0"),
        ("integer", {"tile_rows": 100}, "whole chunks"),
        ("integer", {"k": 2000}, "k within the tile"),
        ("integer", {"codes": "fp8"}, "expected int8"),
        ("int8_limbs", {"k": None}, "free k"),
        ("w4a4", {}, "one of integer, float"),
    ],
)
def test_senseless_requests_are_refused(form: Any, sizes: dict[str, Any], message: str) -> None:
    request = {"dim": 8, "k": 10, "tile_rows": 1024, "chunk_rows": 64, "bias": False, **sizes}
    with pytest.raises(UsageError, match=message):
        head_graph(form, **request)


@pytest.mark.parametrize("chunk_rows", [64, 1024])
def test_more_users_than_one_topk_may_return_are_taken_in_rounds(chunk_rows: int) -> None:
    generator = np.random.default_rng(3)
    codes = generator.integers(-1, 2, (8192, 8)).astype(np.int8)  # few values: many equal scores
    items = generator.standard_normal((2, 8)).astype(np.float32)
    feed = {"codes": codes, "scales": np.ones(8192, np.float32)}
    query = Query.quantised(items)
    feed["limbs"], feed["query_scale"] = query.digits(*DIGITS["int8_limbs"]), query.scale.astype(np.float32)
    feed["valid_rows"] = np.array(8000, np.int64)
    many = session("int8_limbs", 8, 8000, None, chunk_rows, False, "int8").run(["scores", "rows"], feed)
    model = head_graph("int8_limbs", dim=8, k=8000, tile_rows=None, chunk_rows=chunk_rows, bias=False)
    for node in (node for node in model.graph.node if node.op_type == "TopK"):
        k = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
        assert int(onnx.numpy_helper.to_array(k)[0]) <= 3840
    scores = np.sort(many[0], axis=1)[:, ::-1]
    np.testing.assert_array_equal(many[0], scores)
    for row in range(2):
        # Every valid row once, and equal scores by row.
        assert sorted(many[1][row]) == list(range(8000))
        equal = np.diff(many[0][row]) == 0
        assert equal.sum() > 1000
        assert (np.diff(many[1][row])[equal] > 0).all()
