"""A point of a sweep: one table, and one way to search it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from fllm_export.engines.names import LogProbs
from fllm_export.table.codec_names import CodecName, RefineName


@dataclass(frozen=True)
class TableChoice:
    """What decides the table.

    Attributes:
        quant: codec of the rows.
        dim: dimension of a row.
        sketch: whether rows have a sketch.
        cluster: whether tiles hold similar rows and have bounds.
        refine: codec of refinement rows, or ``no``.
    """

    quant: CodecName
    dim: int
    sketch: bool
    cluster: bool
    refine: RefineName = "no"

    @property
    def name(self) -> str:
        """Name of the table, which is also that of its folder."""
        finer = "" if self.refine == "no" else f"-refine-{self.refine}"
        return f"{self.quant}-d{self.dim}" + "-sketch" * self.sketch + "-cluster" * self.cluster + finer


@dataclass(frozen=True)
class SearchChoice:
    """What decides the search.

    Attributes:
        engine: what executes it.
        threads: threads of a call.
        exact: whether the users must be provably the best of the table.
        log_probs: where the softmax denominator comes from.
        budget_ms: budget of a call in milliseconds; None for no limit.
        batch: items per call.
        candidates: per user wanted, that are ranked again by refinement rows; 0 without them.
    """

    engine: str
    threads: int
    exact: bool
    log_probs: LogProbs
    budget_ms: float | None
    batch: int
    candidates: int = 0

    @property
    def name(self) -> str:
        """Name of the search."""
        way = "exact" if self.exact else "statistical"
        budget = "" if self.budget_ms is None else f"-{self.budget_ms:g}ms"
        again = f"-c{self.candidates}" if self.candidates else ""
        return f"{way}-{self.log_probs}{again}{budget}-b{self.batch}-t{self.threads}-{self.engine}"


@dataclass(frozen=True)
class Point:
    """A table and a search."""

    table: TableChoice
    search: SearchChoice

    @property
    def name(self) -> str:
        """Name of the point, unique in a sweep."""
        return f"{self.table.name}-{self.search.name}"

    @property
    def axes(self) -> dict[str, Any]:
        """The value of every axis by name, JSON-ready."""
        return {**asdict(self.table), **asdict(self.search)}


AXES = tuple(field.name for kind in (TableChoice, SearchChoice) for field in fields(kind))
"""Names of the axes of our own points."""
