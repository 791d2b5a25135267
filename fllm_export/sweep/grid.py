"""The points of a sweep: the product of its axes, without what cannot be and what would be measured twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any

from fllm_export.engines.names import LogProbs
from fllm_export.engines.registry import DEFAULT, ENGINES
from fllm_export.errors import UsageError
from fllm_export.sweep.point import Point, SearchChoice, TableChoice
from fllm_export.table.codec_names import CODEC_NAMES, REFINE_DEFAULT, UNSKETCHED, CodecName, RefineName
from fllm_export.table.codecs import codec

FULL_PASS_ENGINES = ("numpy", "onnxruntime")
"""Engines that score every row, whatever lies beside the rows."""


@dataclass(frozen=True)
class Axes:
    """The values of each axis; the grid is their product.

    Attributes:
        quant: codecs.
        dim: dimensions; empty for that of the rows alone.
        sketch: without and with a sketch.
        cluster: without and with clustered tiles.
        refine: codecs of refinement rows; ``no`` for none.
        candidates: per user wanted, that refinement rows rank again.
        exact: exact and statistical searches.
        log_probs: modes of the softmax denominator.
        call_budget_ms: budgets of a call in milliseconds; None for no limit.
        batch: items per call.
        threads: threads of a call; empty for all CPUs.
        engine: engines.
    """

    quant: tuple[CodecName, ...] = CODEC_NAMES
    dim: tuple[int, ...] = ()
    sketch: tuple[bool, ...] = (False, True)
    cluster: tuple[bool, ...] = (True,)
    refine: tuple[RefineName, ...] = ("no",)
    candidates: tuple[int, ...] = (REFINE_DEFAULT,)
    exact: tuple[bool, ...] = (True, False)
    log_probs: tuple[LogProbs, ...] = ("none",)
    call_budget_ms: tuple[float | None, ...] = (None,)
    batch: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    engine: tuple[str, ...] = (DEFAULT,)


@dataclass
class Grid:
    """What is measured, and what is not.

    Attributes:
        points: each of them once, those of one table together.
        left_out: reason -> number of combinations.
    """

    points: list[Point] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What the rows, the items and the machine allow.

    Attributes:
        dim: dimension of the rows.
        cut_dim: the largest dimension that rows can be cut to: at most as many as there are items to choose the
            directions by, and as the rows have directions.
        items: items that are asked.
        threads: threads where the axes name none.
        obstacles: engine -> why it cannot run here, or None.
    """

    dim: int
    cut_dim: int
    items: int
    threads: int
    obstacles: Mapping[str, str | None]


def make_grid(axes: Axes, limits: Limits) -> Grid:
    """Return the grid of some axes.

    Raises:
        UsageError: nothing is left of it.
    """
    filled = replace(axes, dim=axes.dim or (limits.dim,), threads=axes.threads or (limits.threads,))
    names = [axis.name for axis in fields(Axes)]
    grid = Grid()
    for values in product(*(getattr(filled, name) for name in names)):
        asked = dict(zip(names, values, strict=True))
        reason = _impossible(asked, limits)
        if reason is None:
            plainest, same = _plainest(asked)
            point = _point(plainest)
            if point not in grid.points:
                grid.points.append(point)
                continue
            idle = asked["refine"] == "no" and asked["candidates"] != filled.candidates[0]
            reason = same or ("without refinement rows, no candidates are ranked again" if idle else "named twice")
        grid.left_out[reason] = grid.left_out.get(reason, 0) + 1
    if not grid.points:
        raise UsageError(
            f"no point is left of the grid ({'; '.join(grid.left_out)})", expected="at least one that can be measured"
        )
    tables = list(dict.fromkeys(point.table for point in grid.points))
    grid.points.sort(key=lambda point: tables.index(point.table))
    return grid


def _impossible(asked: dict[str, Any], limits: Limits) -> str | None:
    engine, quant = asked["engine"], asked["quant"]
    if limits.obstacles.get(engine) is not None:
        return f"the engine {engine} cannot run here: {limits.obstacles[engine]}"
    if quant not in ENGINES[engine].codecs:
        return f"the engine {engine} does not scan {quant}"
    if asked["sketch"] and quant in UNSKETCHED:
        return f"{quant} rows are no longer than a sketch of them"
    if asked["refine"] != "no" and not ENGINES[engine].refines:
        return f"the engine {engine} does not read refinement rows"
    if asked["refine"] != "no" and _no_finer(asked, limits):
        return f"{asked['refine']} rows of {limits.dim} dimensions are no finer than {quant} rows of {asked['dim']}"
    if asked["dim"] > limits.dim:
        return f"dim {asked['dim']} is above {limits.dim}, the dimension of the user rows"
    if limits.cut_dim < asked["dim"] < limits.dim:
        return _not_cut(asked["dim"], limits)
    if asked["batch"] > limits.items:
        return f"batch {asked['batch']} is above {limits.items}, the number of items"
    if not asked["exact"] and asked["log_probs"] in ("exact", "certified"):
        return f"{asked['log_probs']} log-probabilities need an exact search"
    return None


def _not_cut(dim: int, limits: Limits) -> str:
    """Return why rows cannot be cut to a dimension."""
    if limits.cut_dim == 0:
        return (
            f"dim {dim} is below {limits.dim}, and all items are queries: rows are cut by what other items have in "
            "common, so give more items or lower --queries"
        )
    return (
        f"dim {dim} is above {limits.cut_dim}, the number of items that are not queries, or the rank of the user rows"
    )


def _plainest(asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the plainest setting that does the same work, and why it is the same."""
    found, reasons = dict(asked), []
    if found["refine"] == "no":
        found["candidates"] = 0
    if asked["engine"] in FULL_PASS_ENGINES and (asked["sketch"] or asked["cluster"]):
        found["sketch"] = found["cluster"] = False
        reasons.append(f"the engine {asked['engine']} reads every row, with or without a sketch and clusters")
    if found["sketch"] and found["log_probs"] in ("exact", "certified"):
        found["sketch"] = False
        reasons.append(f"{found['log_probs']} log-probabilities read rows whole, with or without a sketch")
    if not found["sketch"] and not found["exact"]:
        found["exact"] = True
        reasons.append("without a sketch that it can use, a statistical search is an exact one")
    return found, "; ".join(reasons)


def _no_finer(asked: dict[str, Any], limits: Limits) -> bool:
    finer, scanned = codec(asked["refine"]), codec(asked["quant"])
    return finer.row_bytes(limits.dim) <= scanned.row_bytes(asked["dim"])


def _point(values: dict[str, Any]) -> Point:
    table = TableChoice(*(values[name] for name in ("quant", "dim", "sketch", "cluster", "refine")))
    names = ("engine", "threads", "exact", "log_probs", "call_budget_ms", "batch", "candidates")
    search = SearchChoice(*(values[name] for name in names))
    return Point(table, search)
