from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is not installed

from benchmarks import refinement


def test_the_contest_runs_and_refinement_raises_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["rows", "--rows", "4000", "--dim", "64", "--repeats", "1", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["refinement", *asked])
    refinement.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    recalls = {(line["log_probs"], line["form"]): line["recall"] for line in lines}
    assert recalls[("exact", "int8 x 64")] > 0.9
    for form in ("int2 x 64", "int4row x 64", "int4row x 32"):
        by_candidates = [recalls[("exact", f"{form} + int8, c {c}")] for c in refinement.CANDIDATES]
        assert by_candidates == sorted(by_candidates)
        assert by_candidates[0] < by_candidates[-1]
    assert recalls[("none", "int2 x 64 + int8, clusters, c 4")] == recalls[("exact", "int2 x 64 + int8, c 4")]
