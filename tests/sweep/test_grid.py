from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from fllm_export.engines.registry import ENGINES
from fllm_export.errors import UsageError
from fllm_export.sweep.grid import Axes, make_grid
from fllm_export.table.codec_names import UNSKETCHED


def names(grid):
    return [point.name for point in grid.points]


def test_the_default_grid_has_every_codec_with_and_without_a_sketch(limits):
    grid = make_grid(Axes(), limits)
    scanned = set(ENGINES["native"].codecs)
    assert len(grid.points) == 3 * len(scanned - set(UNSKETCHED)) + len(scanned & set(UNSKETCHED))
    assert {point.table.quant for point in grid.points} == scanned
    assert {point.search.threads for point in grid.points} == {1}
    assert len(set(names(grid))) == len(grid.points)


def test_the_grid_is_the_product_of_its_axes(limits):
    axes = Axes(quant=("int8", "fp16"), sketch=(True,), batch=(1, 4), threads=(1, 2), call_budget_ms=(None, 2.5))
    grid = make_grid(axes, limits)
    assert len(grid.points) == 2 * 2 * 2 * 2 * 2
    assert not grid.left_out
    assert "int8-d32-sketch-cluster-statistical-none-2.5ms-b4-t2-native" in names(grid)


def test_what_hinders_a_cut_is_said(limits):
    axes = Axes(quant=("int8",), dim=(20,))
    with pytest.raises(UsageError, match="dim 20 is above 16, the number of items that are not queries, or the rank"):
        make_grid(axes, limits)
    with pytest.raises(UsageError, match=r"dim 20 is below 32, and all items are queries.*lower --queries"):
        make_grid(axes, replace(limits, cut_dim=0))


def test_points_of_one_table_stand_together(limits):
    grid = make_grid(Axes(batch=(1, 2, 4), cluster=(True, False)), limits)
    tables = [point.table for point in grid.points]
    changes = sum(one != other for one, other in pairwise(tables))
    assert changes + 1 == len(set(tables))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"engine": ("cuda",)}, "the engine cuda cannot run here: there is no GPU"),
        ({"batch": (13,)}, "batch 13 is above 12"),
        ({"dim": (33,)}, "dim 33 is above 32"),
        ({"dim": (20,)}, "dim 20 is above 16"),
        ({"exact": (False,), "log_probs": ("exact",)}, "exact log-probabilities need an exact search"),
    ],
)
def test_what_cannot_be_is_left_out_and_said(limits, changed, reason):
    plain = Axes(quant=("int8",), dim=(limits.dim,))
    more = {name: (*getattr(plain, name), *values) for name, values in changed.items()}
    grid = make_grid(replace(plain, **more), limits)
    assert any(reason in found for found in grid.left_out)
    with pytest.raises(UsageError, match="no point is left"):
        make_grid(replace(Axes(quant=("int8",)), **changed), limits)


def test_an_engine_is_given_only_codecs_that_it_scans(limits):
    grid = make_grid(Axes(engine=("cuda",)), replace(limits, obstacles={"cuda": None}))
    assert {point.table.quant for point in grid.points} == {"int8", "fp8", "int4row", "int2"}
    assert grid.left_out["the engine cuda does not scan fp32"] == 4


def test_the_same_work_is_measured_once(limits):
    plain = make_grid(Axes(quant=("int8",), sketch=(False,)), limits)
    assert names(plain) == ["int8-d32-cluster-exact-none-b1-t1-native"]
    assert list(plain.left_out.values()) == [1]
    every_row = make_grid(Axes(quant=("int8",), log_probs=("exact",), exact=(True,)), limits)
    assert names(every_row) == ["int8-d32-cluster-exact-exact-b1-t1-native"]
    many = make_grid(Axes(quant=("int8",), batch=(8, 9)), limits)
    assert [(point.search.batch, point.table.sketch, point.search.exact) for point in many.points] == [
        (8, False, True),
        (9, False, True),
        (8, True, True),
        (9, True, True),
        (8, True, False),
        (9, True, False),
    ]
    reference = make_grid(Axes(quant=("int8",), engine=("numpy",)), limits)
    assert names(reference) == ["int8-d32-exact-none-b1-t1-numpy"]
    assert sum(reference.left_out.values()) == 3
    assert sum(make_grid(Axes(quant=("int8", "int8")), limits).left_out.values()) == 1 + 4


def test_refinement_is_an_axis_of_tables_and_its_candidates_one_of_searches(limits):
    axes = Axes(quant=("int2", "int8"), sketch=(False,), refine=("no", "int8"), candidates=(1, 4))
    grid = make_grid(axes, limits)
    assert [(point.table.quant, point.table.refine, point.search.candidates) for point in grid.points] == [
        ("int2", "no", 0),
        ("int2", "int8", 1),
        ("int2", "int8", 4),
        ("int8", "no", 0),
    ]
    assert "refine-int8" in grid.points[1].name
    assert "-c1-" in grid.points[1].name
    dim = limits.dim
    assert grid.left_out[f"int8 rows of {dim} dimensions are no finer than int8 rows of {dim}"] == 4
    assert grid.left_out["without refinement rows, no candidates are ranked again"] == 2


def test_engines_on_gpus_refine_nothing(limits):
    limits = replace(limits, obstacles={"cuda": None})
    grid = make_grid(Axes(quant=("int8",), refine=("no", "fp16"), sketch=(False,), engine=("native", "cuda")), limits)
    assert grid.left_out["the engine cuda does not read refinement rows"] > 0
    assert {point.table.refine for point in grid.points if point.search.engine == "cuda"} == {"no"}
