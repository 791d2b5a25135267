"""The benchmark of the planner plans, builds and compares, and notices a plan that is not exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import planner


def test_planned_and_real_numbers_are_put_side_by_side(tmp_path: Path) -> None:
    table = {"quant": "int8", "sketch": "yes", "cluster": "yes"}
    found = planner.run(3000, 64, (1, 4), tmp_path, table)
    assert not list(tmp_path.iterdir())
    assert found["bytes"] > 3000 * (64 + 4 + 8)
    assert len(found["planned_build_s"]) == 2
    assert found["search_ms"].keys() == found["planned_search_ms"].keys() == {1, 4}
    line = planner.summary([found])
    assert line[0] == f"{found['bytes']:,} (equal)"
    assert float(line[2]) > 0


def test_a_plan_of_other_bytes_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planner.planned
    monkeypatch.setattr(planner, "planned", lambda rows, *rest: plan(rows + 16, *rest))
    with pytest.raises(AssertionError, match=r"the table has \d+ bytes; planned were \d+"):
        planner.run(3000, 16, (1,), tmp_path, {"quant": "int8"})
