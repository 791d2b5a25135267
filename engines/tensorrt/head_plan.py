"""A head plan: what it takes, as the engine needs to know it."""

from __future__ import annotations

from pathlib import Path

from fllm_export.engines.tensorrt.choice import choose_plan
from fllm_export.engines.tensorrt.loaded_plan import LoadedPlan
from fllm_export.engines.tensorrt.plan import Plan
from fllm_export.errors import BundleError
from fllm_export.plan_forms import PLAN_FORMS
from fllm_export.table.layout import TableLayout

_OUTPUTS = {"scores", "rows", "m", "l"}


class HeadPlan:
    """A loaded head plan that fits a table.

    Args:
        folder: ``head/plans`` of a bundle; of several plans that fit, the one that returns the most users is taken.
        layout: the table's, int8 or fp8.

    Attributes:
        plan: the loaded plan.
        name: its file.
        k: users that it returns of a tile.
        chunk_rows: tiles have a multiple of so many rows.
        digits: how many digits of an item's integers it takes.
        base: their base.
        least_rows: rows of a tile at least.

    Raises:
        HardwareError: there is no plan for this machine.
        BundleError: the plan is not one for this table.
    """

    def __init__(self, folder: Path, layout: TableLayout) -> None:
        form = PLAN_FORMS[layout.codec]

        def rank(plan: Plan) -> int | None:
            return None if plan.precision != form.name or plan.k is None else -plan.k

        library, chosen = choose_plan(folder, rank, "")
        self.name = chosen.file
        self.plan = LoadedPlan(library, folder / chosen.file)
        inputs = {"codes", "scales", "limbs", "query_scale", "valid_rows"} | ({"bias"} if layout.bias else set())
        self.plan.check_tensors(inputs, _OUTPUTS)
        self.digits, self.base = form.digits, form.base
        self.k = self.plan.shape("scores")[1]
        self.chunk_rows = chosen.chunk_rows or self.k
        self.least_rows = self.plan.range_of("scales", 0)[0][0]
        dim = self.plan.shape("codes")[1]
        if dim != layout.dim:
            raise BundleError(
                f"{self.plan.path} is for rows of {dim} numbers",
                expected=f"{layout.dim}, as the table has",
                fix="Build the plan again",
            )

    @property
    def most_items(self) -> int:
        """Items of a call at most."""
        return self.plan.range_of("query_scale", self.plan.profiles - 1)[1][0]

    def profile(self, items: int) -> int:
        """Return the profile for a call with so many items: the first is for one."""
        return 0 if items == 1 else self.plan.profiles - 1

    def most_rows(self, items: int) -> int:
        """Return how many rows a tile may have for so many items."""
        return self.plan.range_of("scales", self.profile(items))[1][0]
